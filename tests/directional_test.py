"""Labels that mirroring reverses, by their names."""

import pytest

from vdm.data.builders import directional
from vdm.data.synthetic import scenes


def test_all_synthetic_labels_have_a_direction():
  names = directional.labels('synthetic_scenes', scenes.LABEL_NAMES)
  assert names == list(scenes.LABEL_NAMES)


@pytest.mark.parametrize(
  'name',
  [
    'left',
    'turn_right',
    'TurnLeft',
    'LEFT',
    'left-turn',
    'swipeLeft2',
    'Pushing something from left to right',
    'leftward',
    'lefthanded',
    'RightHand',
    'turn clockwise',
    'anticlockwise',
    'LEFT_TURN',
  ],
)
def test_names_with_a_side(name):
  assert directional.labels('video_folder', ['cats', name]) == [name]


@pytest.mark.parametrize(
  'name',
  ['copyright', 'Brighten', 'cleft', 'leftovers', 'up', 'clock', 'HandStand'],
)
def test_names_without_a_side(name):
  assert directional.labels('video_folder', [name]) == []
