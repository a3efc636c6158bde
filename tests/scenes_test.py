"""The synthetic world against its own truth and against plain mechanics."""

import hashlib
import itertools

import numpy as np
import pytest

from vdm.common import shapes
from vdm.data.synthetic import paths
from vdm.data.synthetic import scene_spec
from vdm.data.synthetic import scenes

PLAIN = dict(seed=3, resolution=64, frames=16)


def _many(count, **options):
  return [scenes.render(i, **{**PLAIN, **options}) for i in range(count)]


def _signal(frames):
  """Brightest channel: the share of a pixel that one pure colour covers."""
  return frames.max(-1) / 255.0


def test_same_scene_whenever_it_is_asked_for():
  first = scenes.render(5, **PLAIN)
  scenes.render(6, **PLAIN)
  again = scenes.render(5, **PLAIN)
  np.testing.assert_array_equal(first['frames'], again['frames'])
  other = scenes.render(5, **{**PLAIN, 'seed': 4})
  assert (first['frames'] != other['frames']).any()


def test_pixels_of_the_world_are_pinned():
  # Another digest is another data set: results are no longer comparable.
  clips = np.stack([clip['frames'] for clip in _many(8)])
  digest = hashlib.sha256(clips.tobytes()).hexdigest()
  assert digest[:16] == '70a534ab2cbf993e'


def test_shapes_and_types():
  clip = scenes.render(0, **PLAIN, objects=2)
  truth = clip['truth']
  assert clip['frames'].shape == (16, 64, 64, 3)
  assert clip['frames'].dtype == np.uint8
  expected = {
    'centre': ('float32', (16, 2, 2)),
    'velocity': ('float32', (16, 2, 2)),
    'size': ('float32', (16, 2)),
    'colour': ('uint8', (16, 2, 3)),
    'visible': ('float32', (16, 2)),
    'shape': ('int32', (2,)),
    'angle': ('float32', (16, 2)),
  }
  found = {name: (str(x.dtype), x.shape) for name, x in truth.items()}
  assert found == expected


@pytest.mark.parametrize('rotation', [False, True])
def test_centroid_and_area_of_the_pixels_are_the_truth(rotation):
  middle = np.arange(64) + 0.5
  for clip in _many(24, rotation=rotation):
    signal, truth = _signal(clip['frames']), clip['truth']
    area = signal.sum((1, 2))
    x = (signal.sum(1) @ middle) / area
    y = (signal.sum(2) @ middle) / area
    centre = np.stack([x, y], axis=-1)
    # Anti-aliasing and rounding to grey levels leave about 0.02 px.
    np.testing.assert_allclose(centre, truth['centre'][:, 0], atol=0.05)
    radius = np.sqrt(area / np.pi)
    np.testing.assert_allclose(radius, truth['size'][:, 0], rtol=0.01)
    brightest = clip['frames'].reshape(16, -1, 3).max(1)
    np.testing.assert_array_equal(brightest, truth['colour'][:, 0])


def test_label_is_the_direction_and_no_wall_is_touched():
  for clip in _many(32):
    label, centre = clip['label'], clip['truth']['centre'][:, 0]
    angle = np.deg2rad(45 * label)
    way = (centre[-1] - centre[0]) / np.linalg.norm(centre[-1] - centre[0])
    np.testing.assert_allclose(way, [np.cos(angle), np.sin(angle)], atol=1e-5)
    steps = np.linalg.norm(np.diff(centre, axis=0), axis=-1)
    assert 1.4 <= steps.min() and steps.max() <= 2.2 + 1e-5
    assert np.ptp(steps) < 1e-4
    velocity = clip['truth']['velocity'][:-1, 0]
    np.testing.assert_allclose(np.diff(centre, axis=0), velocity, atol=1e-4)
    frames = clip['frames']
    border = [frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]]
    assert not np.concatenate(border).any()


def test_labels_are_balanced_in_every_block_and_not_in_step():
  labels = np.array([scenes._direction(0, i) for i in range(512)])
  blocks = np.sort(labels.reshape(-1, 8), axis=1)
  assert (blocks == np.arange(8)).all()
  for offset in range(8):
    counts = np.bincount(labels[offset::8], minlength=8)
    assert counts.min() > 0


def test_starts_fill_all_places_from_which_no_wall_is_touched():
  # Of the way between the walls that the path leaves free, in [0, 1].
  parts = []
  for clip in _many(200, frames=2):
    truth = clip['truth']
    low, high = shapes.extent(
      int(truth['shape'][0]), float(truth['size'][0, 0]), False
    )
    path = truth['centre'][:, 0]
    before = path.min(0) - low - paths.MARGIN
    after = 64 - path.max(0) - high - paths.MARGIN
    parts.append(before / (before + after))
  parts = np.array(parts)
  assert parts.min() > -1e-4 and parts.max() < 1 + 1e-4
  # Uniform: mean 1/2, deviation 1/sqrt(12) = 0.289, within 3 standard errors.
  np.testing.assert_allclose(parts.mean(0), 0.5, atol=0.062)
  np.testing.assert_allclose(parts.std(0), 0.289, atol=0.03)


def test_colours_are_saturated_and_all_shapes_occur():
  clips = _many(64)
  colours = np.array([clip['truth']['colour'][0, 0] for clip in clips])
  assert (colours.max(1) == 255).all() and (colours.min(1) == 0).all()
  shapes = [clip['truth']['shape'][0] for clip in clips]
  assert set(shapes) == {0, 1, 2}


def test_everything_scales_with_the_resolution():
  small, large = (
    scenes.render(2, seed=0, resolution=r, frames=16) for r in (64, 128)
  )
  for name in ('velocity', 'size'):
    np.testing.assert_allclose(
      2 * small['truth'][name], large['truth'][name], rtol=1e-5
    )


def test_long_windows_fit():
  clip = scenes.render(0, seed=0, resolution=64, frames=64)
  travel = np.linalg.norm(clip['truth']['velocity'][0, 0]) * 63
  assert clip['label'] >= 0 and 15 * 1.4 <= travel <= 15 * 2.2 + 1e-3


def test_gravity_falls_and_has_no_label():
  for clip in _many(8, motion='gravity'):
    assert clip['label'] == -1
    second = np.diff(clip['truth']['centre'][:, 0], n=2, axis=0)
    np.testing.assert_allclose(second[:, 0], 0, atol=1e-4)
    np.testing.assert_allclose(second[:, 1], 0.2, atol=1e-4)


def test_walls_keep_the_speed_and_label_only_what_holds():
  bounced = 0
  for clip in _many(48, walls=True, frames=24):
    velocity = clip['truth']['velocity'][:, 0]
    # Elastic: a component changes its sign, never its size.
    size = np.abs(velocity)
    np.testing.assert_allclose(size, np.broadcast_to(size[0], size.shape))
    turned = bool((velocity != velocity[0]).any())
    assert (clip['label'] == -1) == turned
    bounced += turned
  assert 8 < bounced < 48


def test_gravity_between_walls_keeps_the_energy():
  for clip in _many(8, walls=True, motion='gravity', frames=60):
    truth = clip['truth']
    speed, height = truth['velocity'][:, 0, 1], truth['centre'][:, 0, 1]
    energy = 0.5 * speed**2 - 0.2 * height
    np.testing.assert_allclose(energy, energy[0], atol=1e-3)


def test_objects_keep_apart_unless_they_are_to_cross():
  for clip in _many(8, objects=3):
    np.testing.assert_allclose(clip['truth']['visible'], 1, atol=1e-6)
  for clip in _many(8, objects=2, crossings=True, rotation=True):
    visible = clip['truth']['visible']
    np.testing.assert_allclose(visible[[0, -1]], 1, atol=1e-6)
    np.testing.assert_allclose(visible[:, 0], 1)  # The nearest.
    assert visible[:, 1].min() < 0.7


def test_visible_is_the_share_of_pixels_seen():
  clip = scenes.render(1, **PLAIN, objects=2, crossings=True)
  truth = clip['truth']
  # On black a pixel is the sum of the colours by the shares they cover.
  colours = truth['colour'][0].astype(float)
  shares = clip['frames'].reshape(-1, 3) @ np.linalg.pinv(colours)
  seen = shares.reshape(16, -1, 2).sum(1)
  np.testing.assert_allclose(seen / seen[0], truth['visible'], atol=0.01)


def test_textured_ground_is_still_dark_and_nearly_grey():
  clip = scenes.render(0, **PLAIN, ground='textured')
  middle = np.arange(64) + 0.5
  x, y = np.moveaxis(clip['truth']['centre'][:, 0], -1, 0)[:, :, None]
  far = np.hypot((middle - x)[:, None, :], (middle - y)[:, :, None]) > 18
  ground = clip['frames'][far].astype(int)
  assert ground.min() > 10 and ground.max() < 110 and ground.std() > 4
  assert np.ptp(ground, axis=-1).max() < 25
  both = far[0] & far[-1]
  first, last = clip['frames'][0][both], clip['frames'][-1][both]
  np.testing.assert_array_equal(first, last)


def test_every_combination_renders():
  for ground, motion, rotation, walls, (
    objects,
    crossings,
  ) in itertools.product(
    scene_spec.GROUNDS,
    scene_spec.MOTIONS,
    [False, True],
    [False, True],
    [(1, False), (3, False), (3, True)],
  ):
    clip = scenes.render(
      0,
      seed=1,
      resolution=32,
      frames=8,
      objects=objects,
      ground=ground,
      motion=motion,
      rotation=rotation,
      walls=walls,
      crossings=crossings,
    )
    assert clip['frames'].any()


@pytest.mark.parametrize(
  'options',
  [
    dict(objects=0),
    dict(objects=4),
    dict(ground='grass'),
    dict(motion='spiral'),
    dict(crossings=True),
    dict(resolution=8),
    dict(resolution=16, objects=2),
    dict(frames=0),
  ],
)
def test_impossible_options_are_refused(options):
  with pytest.raises(ValueError):
    scenes.render(0, **{**PLAIN, **options})
