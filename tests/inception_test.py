"""The Inception Score against its closed forms and the written sum."""

import numpy as np
import pytest
from scipy import special

from vdm.metrics import inception


def test_between_one_and_the_number_of_classes():
  assert inception.score(np.zeros((40, 101))) == (1.0, 0.0)
  certain = 1000.0 * np.eye(5)[np.arange(50) % 5]
  mean, spread = inception.score(certain, parts=1)
  assert mean == pytest.approx(5) and spread == 0
  alike = np.tile(certain[:1], (50, 1))
  assert inception.score(alike, parts=5)[0] == pytest.approx(1)


def test_it_is_the_written_sum_over_shuffled_parts():
  logits = 3 * np.random.default_rng(0).standard_normal((60, 7))
  p = special.softmax(logits, axis=1)
  p = p[np.random.RandomState(42).permutation(60)]
  expected = []
  for part in (p[:20], p[20:40], p[40:]):
    total = sum(special.rel_entr(row, part.mean(0)).sum() for row in part)
    expected.append(np.exp(total / 20))
  mean, spread = inception.score(logits, parts=3)
  assert mean == pytest.approx(np.mean(expected), rel=1e-12)
  assert spread == pytest.approx(np.std(expected), rel=1e-9)


def test_too_few_clips_are_refused():
  with pytest.raises(ValueError, match='cannot be divided into 10'):
    inception.score(np.zeros((9, 3)))
