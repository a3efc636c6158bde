"""Continued clips of one object, against the true ones."""

import numpy as np
import pytest

from vdm.config import schema
from vdm.data.synthetic import scenes
from vdm.evaluation import given_object
from vdm.metrics import prediction

GIVEN = (0, 1)


def data(**options):
  found = schema.default().data
  found.name = 'synthetic_scenes'
  found.scenes.update(frames=8, **options)
  return found


def clips(count, **options):
  found = [
    scenes.render(i, seed=3, resolution=64, frames=8, **options)
    for i in range(count)
  ]
  return (
    np.stack([x['frames'] for x in found]),
    np.stack([x['truth']['centre'][:, 0] for x in found]),
    np.array([x['truth']['shape'][0] for x in found]),
  )


@pytest.mark.parametrize(
  'options', [{}, {'motion': 'gravity', 'walls': True}, {'rotation': True}]
)
def test_the_truth_has_no_error(options):
  video, _, _ = clips(3, **options)
  found = given_object.make_measure(data(**options))(video[None], video, GIVEN)
  assert found['position_error'] == found['size_error'] == 0
  assert found['hue_error'] == pytest.approx(0, abs=1e-6)
  assert found['position_error_by_frame'] == [0.0] * 6
  assert found['one_object'] == found['shape_given'] == 1


def test_errors_are_those_of_the_stored_truth():
  """Copies of the last given frame are as far off as the object moves on."""
  video, centre, shape = clips(6)
  measure = given_object.make_measure(data())
  found = measure(prediction.copy(video, GIVEN)[None], video, GIVEN)
  moved = np.linalg.norm(centre[:, 2:] - centre[:, 1:2], axis=-1)
  np.testing.assert_allclose(
    found['position_error_by_frame'], np.median(moved, 0), atol=0.05
  )
  assert found['position_error'] == found['position_error_by_frame'][-1]
  assert found['shape_given'] == 1 and found['size_error'] < 0.01
  # From both ends the middle is farthest, the later one of two.
  both = measure(prediction.copy(video, (0, 7))[None], video, (0, 7))
  assert both['position_error'] == both['position_error_by_frame'][3]
  # Other clips: the shapes that agree, by the truth.
  other = measure(np.roll(video, 1, axis=0)[None], video, GIVEN)
  assert other['shape_given'] == np.mean(np.roll(shape, 1) == shape)
  assert other['hue_error'] > 5


def test_lost_and_second_objects_count():
  video, _, _ = clips(4)
  measure = given_object.make_measure(data())
  gone, double = video.copy(), video.copy()
  gone[0, 5:] = 0  # Not seen at the last frame: its place is unknown.
  double[1] = np.maximum(video[1], np.roll(video[1], 32, axis=2))
  assert measure(gone[None], video, GIVEN)['one_object'] == 0.75
  assert measure(double[None], video, GIVEN)['one_object'] == 0.75
  nothing = measure(np.zeros_like(video)[None], video, GIVEN)
  assert nothing['one_object'] == nothing['shape_given'] == 0
  assert 'position_error' not in nothing
  assert nothing['position_error_by_frame'] == [None] * 6
  # All tries count alike.
  tries = np.stack([video, np.zeros_like(video)])
  assert measure(tries, video, GIVEN)['one_object'] == 0.5


def test_errors_are_medians_over_all_tries():
  video, _, _ = clips(1)
  measure = given_object.make_measure(data())

  def beside(*shifts):
    # Objects that leave on the right come in on the left, but not these.
    tries = np.stack([np.roll(video, x, axis=3) for x in shifts])
    return measure(tries, video, GIVEN)

  assert beside(4)['position_error'] == pytest.approx(4, abs=1e-4)
  for shifts, wanted in (((0, 4), 2), ((4, 0), 2), ((4, 0, 0), 0)):
    found = beside(*shifts)
    assert found['position_error'] == pytest.approx(wanted, abs=1e-4)
    np.testing.assert_allclose(
      found['position_error_by_frame'], [wanted] * 6, atol=1e-4
    )


def test_other_data_have_no_such_truth():
  video, _, _ = clips(1)
  videos = data()
  videos.name = 'video_folder'
  for options in (data(objects=2), videos):
    assert not given_object.make_measure(options)(video[None], video, GIVEN)
