"""Frames that are not square: how they are cut, stored, drawn and judged."""

import shutil

import av
import cv2
import numpy as np
from PIL import Image
import pytest

from tests import tiny_source
from tests import tiny_videos
from vdm.common import sizes
from vdm.config import check
from vdm.config import schema
from vdm.data import builders
from vdm.data import clip_reader
from vdm.data import clip_spec
from vdm.data import coding
from vdm.data import latent_cache
from vdm.data import windowing
from vdm.data.synthetic import scenes
from vdm.evaluation import synthetic_score
from vdm.media import video_files
from vdm.metrics import descriptors
from vdm.metrics import laws
from vdm.metrics import synthetic_truth
from vdm.preparation import clip_files
from vdm.preparation import datasets
from vdm.preparation import geometry
from vdm.preparation import given_frames

WIDE = dict(resolution=64, width=112)


def test_a_size_is_stated_by_one_or_two_keys():
  for keys in ({'resolution': 64}, {'resolution': 64, 'width': 0}):
    assert sizes.of(keys) == (64, 64)
  assert sizes.of(WIDE) == (64, 112)
  assert sizes.of(schema.stage(**WIDE)) == (64, 112)
  assert sizes.keys((64, 64)) == {'resolution': 64}
  assert sizes.keys((64, 112)) == WIDE
  assert [sizes.text(x) for x in ((64, 64), (64, 112))] == ['64', '112x64']


@pytest.mark.parametrize(
  'within, size, aspect, part',
  [
    ((240, 320), (64, 64), 1.0, (0, 40, 240, 240)),
    ((720, 1280), (64, 112), 1.0, (0, 10, 720, 1260)),
    ((1280, 720), (64, 112), 1.0, (434, 0, 411, 720)),
    ((720, 1280), (112, 64), 1.0, (0, 434, 720, 411)),
    ((576, 720), (64, 112), 16 / 11, (0, 13, 576, 693)),  # Wide pixels.
  ],
)
def test_the_largest_centred_part_of_a_shape(within, size, aspect, part):
  assert sizes.fit(within, size, aspect) == part
  shown = part[3] * aspect / part[2]
  assert abs(shown - size[1] / size[0]) < 2 / min(size)


def test_square_data_sets_are_where_they_were():
  """Everything that names or identifies one is what it was without widths."""
  data = schema.default().data
  data.root = '/d'
  expected = '/d/synthetic_scenes/64px_16f_webp_e238ee511c/1.0.0'
  assert datasets.dataset_dir(data) == expected
  data.width = 64  # The same, said in full.
  assert datasets.dataset_dir(data) == expected
  data.width = 112
  assert '/112x64px_16f_webp_' in datasets.dataset_dir(data)


@pytest.mark.parametrize(
  'data, stage, words',
  [
    ({'width': 112}, {}, 'set it to 112 to keep their shape, or to 64'),
    ({}, {'width': 112}, 'width=112 is above config.data.width=64'),
    ({'width': 104}, {'width': 104}, 'width=104 is not divisible by 16'),
    ({'width': 112}, {**WIDE, 'crop': 80}, 'crop=80 is above resolution=64'),
    ({'width': 112}, {**WIDE, 'zoom': (1.0, 2.0)}, '112x64 is 1 times'),
    ({'width': 112}, {'width': 64}, 'give them one shape'),
  ],
)
def test_sizes_that_cannot_be_are_refused(data, stage, words):
  config = schema.default()
  config.autoencoder.kind = 'pca'
  config.data.update(data)
  config.train.order = ('video',)
  config.stages.video = schema.stage(steps=200, **stage)
  with pytest.raises(ValueError, match=words):
    check.validate(config)


def test_wide_sizes_are_accepted():
  config = schema.default()
  config.autoencoder.kind = 'pca'
  config.data.update(name='driving', resolution=144, width=256)
  config.train.order = ('image', 'video')
  config.stages.image = schema.stage(steps=200, resolution=32, width=32)
  config.stages.video = schema.stage(steps=200, zoom=(1.0, 2.0), **WIDE)
  check.validate(config)


def clips(count, **options):
  made = [scenes.render(i, seed=0, frames=16, **options) for i in range(count)]
  video = np.stack([scene['frames'] for scene in made])
  truth = {
    k: np.stack([scene['truth'][k] for scene in made]) for k in made[0]['truth']
  }
  return video, truth, np.array([scene['label'] for scene in made])


@pytest.mark.parametrize('size', [(64, 112), (96, 64)])
def test_a_world_reaches_from_wall_to_wall(size):
  video, truth, _ = clips(32, walls=True, ground='textured', **sizes.keys(size))
  assert video.shape == (32, 16, *size, 3)
  centre = truth['centre'].reshape(-1, 2)
  low, high = centre.min(0), centre.max(0)
  size_xy = np.array(size[::-1])
  assert (low > 0).all() and (high < size_xy).all()
  assert (low < 16).all() and (high > size_xy - 16).all()
  # Cells of the ground are about as wide as high: no direction is smoother.
  ground = np.median(video.astype(float), axis=1).mean(-1)
  rough = [np.abs(np.diff(ground, axis=a)).mean() for a in (1, 2)]
  assert 0.8 < rough[0] / rough[1] < 1.25


def test_wide_worlds_are_judged_by_their_own_walls():
  config = schema.default()
  config.data.update(**WIDE)
  config.data.scenes.update(walls=True, motion='gravity')
  stage = schema.stage(frames=16, **WIDE)
  video, truth, _ = clips(16, walls=True, motion='gravity', **WIDE)
  world = synthetic_score.world(config.data, stage)
  found = laws.summarise(laws.measure(video, world))
  assert found['bounces'] > 0.3 and found['bounce'] < 0.05
  assert found['acceleration'] < 0.05 and found['count_error'] == 0
  # Objects do reach beyond the square that is as high.
  assert truth['centre'][..., 0].max() > 80


def test_wide_straight_movers_are_judged_as_square_ones():
  video, truth, labels = clips(16, **WIDE)
  measured = synthetic_truth.measure(video)
  found = synthetic_truth.summarise(measured, labels)
  assert found['label_agreement'] == found['present_share'] == 1
  assert found['residual_percent'] < 0.1
  np.testing.assert_allclose(
    measured['centre'], truth['centre'][:, :, 0], atol=0.2
  )


def test_a_real_wide_clip_is_stored_wide(shared, tmp_path):
  path = tmp_path / 'videos'
  path.mkdir()
  shutil.copy(shared / 'clips/driving/drive_test_video.mp4', path)
  data = schema.default().data
  data.update(name='driving', root=str(tmp_path), source=str(path), **WIDE)
  directory = datasets.build(data)
  assert '/112x64px_25fps_webp_' in directory
  source = builders.open_source(directory, 'train')
  assert sizes.of(source.info) == (64, 112)
  # 1280 x 720 px: 10 columns are too much on both sides, 1260 are shown.
  row = int(source.index['row'][0])
  stored = coding.decode_frame(source.frames(row, 0, 1)[0], (64, 112))
  with av.open(str(path / 'drive_test_video.mp4')) as container:
    frame = next(container.decode(video=0))
  # What is untagged and 720 rows high is BT.709, see `color`.
  image = frame.to_ndarray(format='rgb24', src_colorspace='ITU709')
  means = cv2.resize(image[:, 10:1270], (112, 64), interpolation=cv2.INTER_AREA)
  np.testing.assert_array_equal(stored, means)
  box = Image.fromarray(image[:, 10:1270]).resize(
    (112, 64), Image.Resampling.BOX
  )
  error = np.abs(stored.astype(int) - np.asarray(box))
  assert error.mean() < 1 and error.max() < 40  # It takes whole pixels.
  clip, _ = clip_files.read_clips(
    path / 'drive_test_video.mp4', frames=2, num=1, sampling='first', **WIDE
  )
  np.testing.assert_array_equal(clip[0, 0], stored)


def test_a_part_of_another_shape_is_averaged():
  image = np.arange(12 * 20, dtype=np.uint8).reshape(12, 20, 1).repeat(3, -1)
  frame = av.VideoFrame.from_ndarray(image, format='rgb24')
  plain = geometry.fit(frame, (6, 14))
  # Rows 12, columns 20: 9 rows of all columns are of the shape.
  wanted = cv2.resize(image[1:10], (14, 6), interpolation=cv2.INTER_AREA)
  np.testing.assert_array_equal(plain, wanted)


def test_given_frames_have_the_shape_of_the_run(tmp_path):
  data = schema.default().data
  data.update(**WIDE)
  # 16:9, with a column of red at the left that is cut off.
  picture = np.full((90, 160, 3), 60, np.uint8)
  picture[:, 0] = 255, 0, 0
  Image.fromarray(picture).save(tmp_path / 'a.png')
  read = given_frames.read
  given = read(str(tmp_path / 'a.png'), (0,), data, (64, 112))
  assert given.frames.shape == (1, 1, 64, 112, 3)
  assert (given.frames == 60).all()
  # A stage of another shape and size sees the middle.
  small = read(str(tmp_path / 'a.png'), (0,), data, (32, 32))
  assert small.frames.shape == (1, 1, 32, 32, 3)
  tiny_videos.write_video(
    tmp_path / 'b.mp4', tiny_videos.grey_steps(3, 72, 128), rate=25
  )
  given = read(str(tmp_path / 'b.mp4'), (0, 2), data, (64, 112))
  assert given.frames.shape == (1, 2, 64, 112, 3)
  np.savez(tmp_path / 'c.npz', videos=np.zeros((2, 3, 128, 224, 3), np.uint8))
  given = read(str(tmp_path / 'c.npz'), (0,), data, (64, 112))
  assert given.frames.shape == (2, 1, 64, 112, 3)
  with pytest.raises(ValueError, match='64x64 px, and neither 112x64 px nor'):
    np.savez(tmp_path / 'd.npz', videos=np.zeros((1, 1, 64, 64, 3), np.uint8))
    read(str(tmp_path / 'd.npz'), (0,), data, (64, 112))


class WideSource(tiny_source.Source):
  """Frames of 8 x 12 px; green is the row, blue the column."""

  def __init__(self):
    super().__init__((4, 4))
    self.info['width'] = 12
    image = np.zeros((8, 12, 3), np.uint8)
    image[..., 1] = np.arange(8)[:, None] * 10
    image[..., 2] = np.arange(12) * 10
    self._image = coding.encode_frame(image, 'webp')

  def frames(self, row, start, stop):
    del row
    return [self._image] * (stop - start)


def read(number=0, **spec):
  spec = clip_spec.ClipSpec(frames=1, stride=1, stage='s', **spec)
  source = WideSource()
  windows = windowing.find_windows(source, spec)
  return clip_reader.TrainingClips(source, windows).read(number).arrays['video']


def test_stages_see_the_middle_of_what_is_stored_in_another_shape():
  whole = read(resolution=8, width=12)[0]
  assert whole[0, :, 2].tolist() == [10 * i for i in range(12)]
  square = read(resolution=8)[0]
  assert square[0, :, 2].tolist() == [10 * i for i in range(2, 10)]
  half = read(resolution=4, width=6)[0]
  assert half[0, :, 2].tolist() == [20 * i + 5 for i in range(6)]
  assert half[:, 0, 1].tolist() == [20 * i + 5 for i in range(4)]
  with pytest.raises(ValueError, match='12x8 px, so it has no clips of 16x8'):
    read(resolution=8, width=16)


def test_crops_of_wide_clips_are_squares_from_anywhere():
  places = set()
  for number in range(200):
    part = read(number, resolution=8, width=12, crop=4)[0]
    top, left = part[0, 0, 1] // 10, part[0, 0, 2] // 10
    assert part[..., 1].tolist() == [[10 * (top + i)] * 4 for i in range(4)]
    assert part[0, :, 2].tolist() == [10 * (left + i) for i in range(4)]
    places.add((int(top), int(left)))
  assert len(places) == 5 * 9  # Every one.
  # Zoomed by the shape of the clip: rows and columns alike.
  part = read(3, resolution=4, width=6, zoom=(2.0, 2.0))[0]
  assert np.ptp(part[:, 0, 1]) == 30 and np.ptp(part[0, :, 2]) == 50


def test_a_cache_of_another_shape_is_named():
  plan = dict(
    dataset=dict(
      name='fake', frame_rate=25.0, resolution=8, version='1', fingerprint='f'
    ),
    autoencoder='a',
    resolution=8,
    mirrored=False,
  )
  wanted = plan | {'width': 12}
  found = latent_cache.find_difference(plan, wanted)
  assert found == 'latents of another resolution (8 px, not 12x8 px)'
  wanted = plan | {'dataset': plan['dataset'] | {'width': 12}}
  assert 'stored resolution (8 px, not 12x8 px)' in (
    latent_cache.find_difference(plan, wanted)
  )
  assert latent_cache.find_difference(plan, plan | {'width': 0}) == ''


def test_pictures_of_wide_clips():
  videos = np.zeros((6, 4, 10, 40, 3), np.uint8)
  # Six of 40 x 10 px: two columns are nearer to a square than three.
  assert video_files.tile(videos, pad=0).shape == (4, 30, 80, 3)
  assert video_files.tile(videos[:, :, :, :10], pad=0).shape == (4, 20, 30, 3)
  big = np.random.default_rng(0).integers(0, 256, (3, 128, 224, 3), np.uint8)
  small = np.stack([descriptors._shrink(image) for image in big])
  assert small.shape == (3, 64, 112, 3)
