"""A run on wide clips of known rate and motion, from training to a card."""

import json
import shutil

from absl.testing import flagsaver
import av
import numpy as np
from PIL import Image
import pytest
import tiny_config

from vdm import generate
from vdm import sample
from vdm import train
from vdm import trained
from vdm.config import schema
from vdm.data import builders
from vdm.data import latent_cache
from vdm.data import scalars
from vdm.evaluation import averages
from vdm.evaluation import real_clips
from vdm.evaluation import run_card
from vdm.preparation import datasets
from vdm.publishing import model_card
from vdm.reporting import run_page
from vdm.reporting import run_record
from vdm.trained import run_folder
from vdm.training import cache_latents
from vdm.training import motion_range
from vdm.training import objectives
from vdm.training import stages

SIZE = 16, 32


@pytest.fixture(scope='module')
def workdir(data_root, tmp_path_factory):
  """A run of one stage on PCA latents of 4 x 8."""
  workdir = tmp_path_factory.mktemp('wide')
  config = tiny_config.make_config(data_root)
  config.data.update(width=SIZE[1], max_stride=2)
  config.data.scenes.frames = 16  # So that clips are rolled out, too.
  config.model.scalars = ('frame_rate', 'motion')
  config.autoencoder.kind = 'pca'
  # All of one number: one program makes them.
  config.sample.update(batch=4, final=4, num=4)
  config.score.every = 12
  config.train.snapshot_every = 0
  config.train.order = ('video',)
  video = config.stages.video
  config.stages = {
    'video': schema.stage(
      **video.to_dict() | dict(width=SIZE[1], steps=24, image_fraction=0.0)
    )
  }
  assert train.train(config, workdir) == 0
  return workdir


def test_videos_and_scores_are_wide(workdir):
  with np.load(workdir / 'final/samples.npz', allow_pickle=False) as file:
    assert file['videos'].shape == (4, 4, *SIZE, 3)
  with np.load(workdir / 'final/real.npz', allow_pickle=False) as file:
    assert file['reconstructions'].shape[2:4] == SIZE
  metrics = json.loads((workdir / 'final/metrics.json').read_text())
  assert metrics['protocol']['resolution'] == 16
  assert metrics['protocol']['width'] == 32
  # The world is judged in its own shape: true clips keep its laws.
  real = metrics['synthetic_truth']['real']
  assert real['present_share'] == real['label_agreement'] == 1
  assert real['residual_percent'] < 1
  found = metrics['given']
  assert set(found) == {'prediction', 'interpolation', 'rollout'}
  rollout = found['rollout']
  assert rollout['given'] == found['prediction']['given'] == [0, 1]
  assert set(rollout['sets']) == set(found['prediction']['sets'])
  for row in rollout['sets'].values():
    assert (
      len(row['psnr_by_frame']) == len(row['position_error_by_frame']) == 14
    )
  # What the frames are compared with is the longer clip.
  copies = rollout['sets']['copy']['position_error_by_frame']
  assert copies[-1] > 4 * copies[0]
  assert rollout['laws']['real']['tracked'] == 1
  assert rollout['laws']['model']['clips'] == 4 * rollout['clips'] == 16
  with av.open(str(workdir / 'final/rollout.mp4')) as file:
    assert sum(1 for _ in file.decode(video=0)) % 16 == 0


def test_held_out_clips_come_with_what_is_told_of_them(workdir):
  model = trained.load(workdir)
  real = real_clips.RealClips(model.config.data, model.stage)
  clips = real_clips.held_out(model, real, 4)
  assert clips['frame_rate'].tolist() == [25.0] * 4
  motion = [
    scalars.describe(('motion',), clip, 25.0)['motion']
    for clip in clips['video']
  ]
  np.testing.assert_array_equal(clips['motion'], motion)


def test_a_card_compares_wide_clips(workdir):
  options = run_card.Options(num=4, training_clips=4)
  card = run_card.evaluate([workdir], workdir / 'evaluation', options)
  assert card['protocol']['reference']['width'] == 32
  assert card['protocol']['samples']['width'] == 32
  assert card['laws']['real']['count_error'] == 0


def run(workdir, out, **values):
  """Makes one video, and returns it and what made it."""
  with flagsaver.flagsaver(workdir=str(workdir), out=str(out), num=1, **values):
    sample.main([])
  with np.load(out / 'samples.npz', allow_pickle=False) as file:
    return file['videos'], json.loads((out / 'samples.json').read_text())


def test_a_picture_goes_on_as_a_wide_video(workdir, tmp_path):
  # 2:1, the left half red: nothing of it may be lost or squashed.
  picture = np.zeros((40, 80, 3), np.uint8)
  picture[:, :40] = 255, 0, 0
  Image.fromarray(picture).save(tmp_path / 'a.png')
  given = dict(given=str(tmp_path / 'a.png'), given_frames='0')
  videos, _ = run(workdir, tmp_path / 'out', **given)
  assert videos.shape == (1, 4, *SIZE, 3)
  first = videos[0, 0].astype(int)
  assert first[:, :12, 0].mean() > first[:, 20:, 0].mean() + 60


def test_what_is_said_of_a_wide_run(workdir):
  model = trained.load(workdir)
  span = stages.spans(model.config)[0]
  assert '4 frames of 32x16 px' in stages.describe(span, None, {}, [])[0]
  assert '4 frames of 32 x 16 px' in model_card._summary(model, 'float32')
  assert '<td>32x16</td>' in run_page.make(run_record.read(workdir))


def test_averages_are_compared_with_all_that_clips_are_told(
  workdir, tmp_path, monkeypatch
):
  copy, seen = tmp_path / 'run', []
  shutil.copytree(workdir, copy)
  make = objectives.make_objective

  def recorded(*args):
    found = make(*args)

    def validate(params, frozen, clips):
      seen.append(clips)
      return found.validate(params, frozen, clips)

    return found._replace(validate=validate)

  monkeypatch.setattr(objectives, 'make_objective', recorded)
  averages.compare(copy, [0.05], num=2)
  (clips,) = seen
  wanted = scalars.describe(('frame_rate', 'motion'), clips['video'][0], 25.0)
  found = {name: clips[name][0] for name in wanted}
  assert found == wanted and wanted['motion'] > 0


def test_latents_of_wide_frames_are_cached(workdir, tmp_path):
  config = trained.load_config(workdir).copy_and_resolve_references()
  config.data.latents = str(tmp_path / 'latents')
  plan = cache_latents.build(config, workdir)
  assert plan['shape'] == [4, 8, 4]
  assert (plan['resolution'], plan['width']) == SIZE
  source = builders.open_source(datasets.ensure(config.data), 'train')
  cached = latent_cache.Cache(config.data.latents, source)
  assert cached.read(0, np.arange(2)).shape == (1, 2, 4, 8, 4)


def test_videos_have_the_rate_and_the_motion_asked_for(workdir, tmp_path):
  config = trained.load_config(workdir)
  low, high = config.model.motion_range
  assert 0 < low < high < 3
  assert config.model.motion_range == motion_range.measure(
    config, builders.open_source(datasets.ensure(config.data), 'train')
  )
  model = trained.load(workdir)
  make = generate.make_generator(model.config, model.stage)

  def made(**told):
    cond = {'label': [0]} | {name: [value] for name, value in told.items()}
    return make.samples(model.params, model.frozen, cond, [0])

  plain = made()
  # The data set's rate is told where nothing is asked for.
  np.testing.assert_array_equal(made(frame_rate=25.0), plain)
  np.testing.assert_array_equal(made(motion=np.nan), plain)
  fast, slow = made(motion=high), made(motion=low)
  assert (fast != slow).any() and (fast != plain).any()
  told = dict(frame_rate=12.5, motion=high)
  videos, record = run(workdir, tmp_path / 'out', label='0', **told)
  assert record['scalars'] == told
  np.testing.assert_array_equal(videos, made(**told))
  assert (videos != fast).any()
  with av.open(str(tmp_path / 'out/seed_000000.mp4')) as container:
    assert container.streams.video[0].average_rate == 12.5


def test_values_that_were_not_trained_are_refused(workdir, tmp_path, capsys):
  for values, words in (
    (dict(motion=50.0), 'outside of what the run was trained with'),
    (dict(frame_rate=50.0), '12.5 to 25 frames a second'),
  ):
    with pytest.raises(SystemExit):
      run(workdir, tmp_path / 'out', **values)
    assert words in capsys.readouterr().err


def test_a_run_keeps_the_range_that_it_began_with(workdir):
  config = trained.load_config(workdir).copy_and_resolve_references()
  began = config.model.motion_range
  config.model.motion_range = (0.0, 0.0)  # As the file of the run has it.
  source = builders.open_source(datasets.ensure(config.data), 'validation')
  assert motion_range.measure(config, source) != began
  found = motion_range.resolve(config, run_folder.begun(workdir), source)
  assert found == began
  assert train.train(config, workdir) == 0
