"""Classes of motion against the scenes' labels."""

import numpy as np
import pytest

from vdm.data.synthetic import scenes
from vdm.metrics import directions


def test_classes_are_the_labels_of_the_scenes():
  for index in range(4):
    scene = scenes.render(index, seed=0, resolution=32, frames=4)
    velocity = scene['truth']['velocity'][:, 0]
    assert (directions.nearest(velocity) == scene['label']).all()


def test_agreement_is_of_labelled_clips():
  found = np.array([0, 3, -1, 5])
  assert directions.agreement(found, np.array([0, 2, 1, -1])) == 1 / 3
  assert directions.agreement(found, np.full(4, -1)) is None
  assert directions.agreement(found, None) is None
  with pytest.raises(ValueError, match='no labels of shape'):
    directions.agreement(found, np.zeros(3, int))
