"""The panel on clips whose motion is known."""

import numpy as np
import pytest

from tests.optical_flow_test import moving
from tests.optical_flow_test import pattern
from vdm.metrics import corruptions
from vdm.metrics import motion
from vdm.metrics import optical_flow


def panel(video):
  values = motion.measure(video, optical_flow.compute(video))
  assert list(values) == list(motion.PANEL)
  assert np.isfinite(list(values.values())).all()
  return values


@pytest.fixture(scope='module')
def steady():
  return panel(moving((1, 1), frames=12))


def test_steady_motion(steady):
  # One pixel each way at 64 is two at 128.
  assert steady['flow'] == pytest.approx(8**0.5, rel=0.1)
  assert steady['acceleration'] < 0.15
  assert steady['flow_failure'] < 0.15
  assert steady['warp_error'] < 3
  assert steady['freeze_rate'] == steady['cut_rate'] == 0


def test_a_still_clip_changes_in_nothing():
  values = panel(np.repeat(pattern(64)[None], 6, axis=0))
  for name in (
    'flow',
    'acceleration',
    'warp_error',
    'flow_failure',
    'high_frequency',
    'second_ratio',
    'shimmer',
    'luma_jitter',
    'cut_rate',
  ):
    assert values[name] < 0.05, name
  assert values['freeze_rate'] == 1
  for name in ('colours_first', 'shapes_first', 'shapes_before'):
    assert values[name] == pytest.approx(1, abs=1e-5)


def test_second_differences_of_a_ramp_and_of_an_alternation():
  ramp = np.arange(10, 130, 10, dtype=np.uint8)
  ramp = np.broadcast_to(ramp[:, None, None, None], (12, 16, 16, 3)).copy()
  values = panel(ramp)
  assert values['second_ratio'] == 0 and values['luma_jitter'] == 0
  assert values['shimmer'] == 10
  alternating = np.full((12, 16, 16, 3), 100, np.uint8)
  alternating[::2] = 110
  values = panel(alternating)
  assert values['second_ratio'] == pytest.approx(2)
  assert values['luma_jitter'] == pytest.approx(20)
  assert values['high_frequency'] > 0.95
  assert panel(alternating[::-1])['high_frequency'] == pytest.approx(
    values['high_frequency']
  )


def test_slow_and_fast_changes_are_told_apart():
  t = np.arange(16)

  def pulsing(cycles):
    level = 128 + 60 * np.sin(2 * np.pi * cycles * t / 16 + 0.3)
    return np.broadcast_to(
      np.rint(level)[:, None, None, None], (16, 16, 16, 3)
    ).astype(np.uint8)

  assert panel(pulsing(1))['high_frequency'] < 0.02
  assert panel(pulsing(6))['high_frequency'] > 0.98


def test_cuts_and_frozen_steps_are_counted():
  first, second = moving((1, 0), 8, seed=0), moving((0, 1), 8, seed=3) // 4
  video = np.concatenate([first[:4], second[:4]])
  assert panel(video)['cut_rate'] == pytest.approx(1 / 7)
  # A jump to another place of the same colours is no cut.
  doubled = corruptions.repeat_frames(first[None])[0]
  values = panel(doubled)
  assert values['freeze_rate'] == pytest.approx(4 / 7)
  assert values['cut_rate'] == 0


def test_shuffling_raises_accelerations_and_fast_changes(steady):
  video = corruptions.shuffle_frames(moving((1, 1), frames=12)[None])[0]
  values = panel(video)
  assert values['acceleration'] > 3 * steady['acceleration']
  assert values['high_frequency'] > 3 * steady['high_frequency']


def test_colours_and_shapes_leave_the_first_frame():
  reddish = moving((0, 0), frames=8) // np.array([1, 4, 4], np.uint8)
  turned = corruptions.drift_hue(reddish[None])[0]
  values = panel(turned)
  assert values['colours_first'] < 0.7 and values['shapes_before'] > 0.9
  rotated = np.stack([np.rot90(pattern(64), k) for k in range(4)])
  values = panel(rotated)
  assert values['colours_first'] > 0.999 and values['shapes_before'] < 0.9


def measured(video, forward=None, valid=None, grey=None):
  """The panel of a clip with a flow that is made by hand, none by default."""
  t, h, w, _ = video.shape
  if forward is None:
    forward = np.zeros((t - 1, h, w, 2))
  if valid is None:
    valid = np.ones(forward.shape[:3], bool)
  if grey is None:
    grey = np.zeros((t, *forward.shape[1:3]))
  flow = optical_flow.Flow(
    np.uint8(grey), np.float32(forward), -np.float32(forward), valid
  )
  return motion.measure(video, flow)


def even(levels, side=16):
  """A clip of one grey level a frame."""
  levels = np.asarray(levels, np.uint8)[:, None, None, None]
  return np.broadcast_to(levels, (len(levels), side, side, 3)).copy()


def test_the_fastest_twentieth_of_the_pixels_of_each_step():
  speeds = np.random.default_rng(0).permutation(100).reshape(10, 10)
  forward = np.zeros((2, 10, 10, 2))
  forward[0, ..., 0], forward[1, ..., 1] = speeds, -2 * speeds.T
  values = measured(even([0, 0, 0]), forward)
  # 95 to 99 in the first step, and twice that in the second.
  assert values['top_flow'] == pytest.approx((97 + 194) / 2)
  assert values['flow'] == pytest.approx((49.5 + 99) / 2)


def test_accelerations_are_along_the_way_of_a_pixel():
  """Everything moves by a pixel, and then by the number of its column."""
  columns = np.arange(8)
  forward = np.zeros((2, 8, 8, 2))
  forward[0, ..., 0], forward[1, ..., 0] = 1, columns
  valid = np.zeros((2, 8, 8), bool)
  valid[0, :, :-1] = True
  # What was at x is at x + 1 and moves by that, which is x more than before.
  faster, speed = np.mean(columns[:-1]), (1 + 3.5) / 2
  grey = np.zeros((3, 8, 8))
  grey[0], grey[1] = 10 * columns, np.maximum(10 * columns - 5, 0)
  values = measured(even([0, 0, 0]), forward, valid, grey)
  assert values['acceleration'] == pytest.approx(faster / (speed + 0.05))
  assert values['flow_failure'] == pytest.approx(1 - 56 / 128)
  # At x + 1 the next frame has 10 (x + 1) - 5.
  assert values['warp_error'] == pytest.approx(5)


def test_the_quietest_tenth_of_the_pixels():
  """Pixel i changes by i levels in each of two steps."""
  rates = np.random.default_rng(0).permutation(100).reshape(10, 10, 1)
  video = np.arange(3)[:, None, None, None] * rates * np.ones(3)
  # In two of three channels alone the change of a pixel is two thirds.
  video[..., 0] = 0
  values = measured(video.astype(np.uint8))
  assert values['shimmer'] == pytest.approx(4.5 * 2 / 3)


@pytest.mark.parametrize(
  ('jump', 'cuts'), [(9, 0), (16, 0), (17, 1 / 6), (40, 1 / 6)]
)
def test_cuts_are_changes_of_more_than_four_times_the_usual_and_8(jump, cuts):
  """Of steps of 2 the limit is 16; from 64 levels on the colour is another."""
  levels = np.array([59, 61, 63, *(63 + jump + np.arange(0, 8, 2))])
  assert measured(even(levels))['cut_rate'] == pytest.approx(cuts)
  assert measured(even(levels + 9))['cut_rate'] == 0


def test_shapes_are_compared_with_the_first_and_with_the_previous_frame():
  """Of ramps to the right and downwards no gradient agrees."""
  ramp = np.repeat(2 * np.arange(64, dtype=np.uint8)[None], 64, axis=0)
  right, down = (np.repeat(x[..., None], 3, axis=2) for x in (ramp, ramp.T))
  values = measured(np.stack([right, right, down, down]))
  assert values['shapes_first'] == pytest.approx(1 / 3, abs=1e-6)
  assert values['shapes_before'] == pytest.approx(2 / 3, abs=1e-6)


def test_black_clips_have_numbers():
  values = panel(np.zeros((4, 16, 16, 3), np.uint8))
  assert values['freeze_rate'] == 1 and values['shapes_first'] == 1
