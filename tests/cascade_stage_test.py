"""Whole runs of a cascade, and every command that reads one.

Five minutes: bash launch/test.sh -m slow tests/cascade_stage_test.py
"""

import json

from absl import flags
from absl.testing import flagsaver
from etils import epath
import numpy as np
import pytest
import tiny_config
import tiny_train

from vdm import chain
from vdm import sample
from vdm import train
from vdm import trained
from vdm.common import errors
from vdm.common import trees
from vdm.config import schema
from vdm.evaluation import averages
from vdm.evaluation import chain_samples
from vdm.evaluation import diagnosis
from vdm.evaluation import result_cache
from vdm.evaluation import run_card
from vdm.media import video_files
from vdm.planning import report as plan
from vdm.planning import targets
from vdm.publishing import export
from vdm.training import sharding
from vdm.training import writer

STEPS = 6

pytestmark = pytest.mark.slow


def make_config(data_root, space, time, **changes):
  """A run that enlarges clips, of PCA latents, or makes them from nothing."""
  config = tiny_config.make_config(data_root)
  config.autoencoder.update(kind='pca', statistics_clips=8)
  config.model.low.update(space_factor=space, time_factor=time)
  config.sample.update(guidance=1.0, final=8)
  config.train.update(order=('video',), snapshot_every=3)
  config.stages = schema.ConfigDict(
    {
      'video': schema.stage(
        **dict(
          steps=STEPS,
          frames=4,
          resolution=16,
          batch=8,
          warmup=1,
          learning_rate=1e-2,
        )
        | changes
      )
    }
  )
  if space * time > 1:
    config.sample.low_noise = 0.1
  return config


@pytest.fixture(scope='module')
def runs(data_root, tmp_path_factory):
  """Folders: 2 frames of 8 px; 4 of 8 from these; 4 of 16; and that stopped."""
  small = make_config(data_root, 1, 1, frames=2, resolution=8)
  small.data.stride = 2
  made = {
    'small': small,
    'frames': make_config(data_root, 1, 2, resolution=8),
    'large': make_config(data_root, 2, 1),
  }
  folders = {}
  for name, config in made.items():
    folders[name] = tmp_path_factory.mktemp(name)
    assert train.train(config, folders[name]) == 0
  folders['stopped'] = tmp_path_factory.mktemp('stopped')
  tiny_train.train_until(made['large'], folders['stopped'], polls=3)
  assert train.train(made['large'], folders['stopped']) == 0
  return {name: epath.Path(path) for name, path in folders.items()}


def arrays(path):
  with np.load(path, allow_pickle=False) as file:
    return dict(file)


def test_a_resumed_run_is_the_uninterrupted_one(runs):
  rows = writer.read_rows(runs['stopped'])
  assert [r['resumed_from'] for r in rows if 'resumed_from' in r] == [3]
  whole, stopped = (
    trees.flatten(tiny_train.restored(runs[name]))
    for name in ('large', 'stopped')
  )
  assert whole.keys() == stopped.keys()
  assert 'params/stem_low/kernel' in whole
  for name, leaf in whole.items():
    np.testing.assert_array_equal(leaf, stopped[name], err_msg=name)
  np.testing.assert_array_equal(
    *(
      arrays(runs[name] / 'final/samples.npz')['videos']
      for name in ('large', 'stopped')
    )
  )


def test_its_numbers_stand_beside_interpolation(runs):
  found = json.loads((runs['large'] / 'final/metrics.json').read_text())
  sets = found['enlargement']['sets']
  rules = ['bicubic', 'lanczos', 'sharpened', 'agreeing']
  assert list(sets) == ['model', *rules, 'autoencoder']
  # It errs less who knows what the small video says.
  assert sets['agreeing']['psnr'] > sets['sharpened']['psnr']
  assert found['enlargement']['clips'] == 8
  # Of real clips; the network has hardly been trained.
  assert sets['lanczos']['psnr'] > 20 > sets['model']['psnr'] > 3
  assert found['protocol']['sample']['low_noise'] == 0.1
  found = json.loads((runs['frames'] / 'final/metrics.json').read_text())
  sets = found['enlargement']['sets']
  assert list(sets) == ['model', 'copy', 'cross_fade', 'autoencoder']
  assert len(sets['copy']['psnr_by_frame']) == 2  # Those that are not known.
  assert 'enlargement' not in json.loads(
    (runs['small'] / 'final/metrics.json').read_text()
  )
  real = arrays(runs['large'] / 'final/real.npz')
  labels = arrays(runs['large'] / 'final/samples.npz')['labels']
  np.testing.assert_array_equal(real['labels'], labels[:8])
  names = {name for row in writer.read_rows(runs['large']) for name in row}
  assert {'val_loss', 'small_score/motion'} <= names
  for name in ('enlarged.mp4', 'enlarged.gif'):
    assert (runs['large'] / 'final' / name).exists()


def test_a_card_scores_the_same_videos(runs, tmp_path):
  card = run_card.evaluate(
    [runs['large']],
    tmp_path,
    run_card.Options(
      num=4, training_clips=0, statistics=str(tmp_path / 'statistics')
    ),
  )
  final = json.loads((runs['large'] / 'final/metrics.json').read_text())
  sets, whole = card['enlargement']['sets'], final['enlargement']['sets']
  assert card['enlargement']['clips'] == 4
  np.testing.assert_allclose(
    np.mean(sets['lanczos']['psnr']), whole['lanczos']['psnr'], rtol=0.2
  )
  said = (tmp_path / 'metrics_card.txt').read_text()
  assert 'Enlargement of 4 held-out clips' in said and 'bicubic' in said


@pytest.fixture
def command(tmp_path):
  """Runs the command, and returns (record, arrays, folder)."""
  flags.FLAGS.mark_as_parsed()

  def run(**values):
    out = tmp_path / f'out_{len(list(tmp_path.iterdir()))}'
    with flagsaver.flagsaver(out=str(out), **values):
      sample.main([])
    record = json.loads((out / 'samples.json').read_text())
    return record, arrays(out / 'samples.npz'), out

  return run


def test_a_card_of_a_chain_is_of_its_videos(runs, command, tmp_path):
  names = [str(runs[name]) for name in ('small', 'frames', 'large')]
  options = run_card.Options(
    num=4, training_clips=0, statistics=str(tmp_path / 'statistics')
  )
  card = run_card.evaluate(names, tmp_path, options)
  keys = card['protocol']['samples']['chain']
  assert [key['frames'] for key in keys] == [2, 4, 4]
  assert 'enlargement' not in card  # No video has a truth.
  models = chain_samples.load(names, None, 'latest', {})
  mesh = sharding.make_mesh()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(chain, 'make', None)  # They come from the cache.
    cache = epath.Path(tmp_path) / result_cache.FOLDER
    videos, asked, _ = chain_samples.make(models, 4, cache, mesh)
  _, found, _ = command(chain=names, num=4)
  difference = np.abs(found['videos'].astype(int) - videos)
  assert difference.max() <= 2  # Other programs, as 4 videos are on a mesh.
  np.testing.assert_array_equal(asked.cond['label'], found['labels'])


def test_a_chain_makes_the_whole(runs, command, capsys):
  names = [str(runs[name]) for name in ('small', 'frames', 'large')]
  record, found, _ = command(chain=names, label='up', num=3, seed=4)
  assert found['videos'].shape == (3, 4, 16, 16, 3)
  assert found['seeds'].tolist() == [4, 5, 6]
  assert record['run'] == names[0]
  assert record['frame_rate'] == 25.0  # Twice that of every second frame.
  assert [x['run'] for x in record['chain']] == names[1:]
  assert [x['frame_rate'] for x in record['chain']] == [25.0, 25.0]
  assert [x['frames'] for x in record['chain']] == [4, 4]
  assert [x['low_noise'] for x in record['chain']] == [0.1, 0.1]
  assert record['chain'][1]['labels'] == record['labels'] == [6, 6, 6]
  # By hand, from the samples of the first two: the same, up to rounding.
  _, _, first = command(workdir=names[0], label='up', num=3, seed=4)
  _, _, second = command(workdir=names[1], low=str(first), seed=4)
  record, again, _ = command(workdir=names[2], low=str(second), seed=4)
  difference = np.abs(again['videos'].astype(int) - found['videos'])
  assert difference.max() <= 2
  assert record['low']['files'] == [f'samples.npz/{i}' for i in range(3)]
  assert record['labels'] == [6, 6, 6] and record['low_noise'] == 0.1
  # Another seed, and more noise, make others.
  for changes in (dict(seed=9), dict(seed=4, low_noise=0.5)):
    _, other, _ = command(workdir=names[2], low=str(second), **changes)
    assert np.abs(other['videos'].astype(int) - found['videos']).max() > 2
  for values, words in (
    (dict(chain=names[::-1]), 'give some by --low'),
    (dict(chain=[names[0], names[2]]), 'enlarges 4 frames of 8 px'),
    (dict(workdir=names[0], low=str(first)), 'leave --low out'),
    (dict(workdir=names[2], low=str(first)), 'frame 3 is to be given'),
    (dict(workdir=names[0], chain=names), 'in place of it'),
    (dict(workdir=names[2], low=str(second), low_noise=0.9), 'what is trained'),
  ):
    with pytest.raises(SystemExit) as error:
      command(**values)
    assert error.value.code == 2
    said = capsys.readouterr().err.strip()
    assert words in said and '\n' not in said, said


def test_a_video_file_is_enlarged(runs, command, tmp_path):
  clip = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
  path = tmp_path / 'clip.mp4'
  video_files.write_mp4(path, clip, 25.0, upscale=4)
  record, found, _ = command(workdir=str(runs['large']), low=str(path))
  assert found['videos'].shape == (1, 4, 16, 16, 3)
  assert record['low']['files'] == ['clip.mp4'] and record['labels'] == [-1]


def test_an_export_says_what_it_enlarges_and_is_a_link(runs, command, tmp_path):
  folder = epath.Path(tmp_path / 'export')
  export.write(runs['large'], folder, export.Options(samples=2))
  card = (folder / 'README.md').read_text()
  assert 'from smaller ones of 4 frames of 8 px at 25 frames a second' in card
  assert (
    '--low clip.mp4' in card and 'versions of clips of the data set' in card
  )
  assert trained.load(folder).config.model.low.space_factor == 2
  names = [str(runs['small']), str(runs['frames'])]
  both = [
    command(chain=[*names, str(last)], num=2)[1]['videos']
    for last in (runs['large'], folder)
  ]
  np.testing.assert_array_equal(*both)


def test_it_is_planned_and_averaged_and_not_diagnosed(runs, data_root):
  config = make_config(data_root, 2, 2)
  found = plan.make(
    config, [targets.parse('h100')], compile_seconds=0, data_seconds=0
  )
  assert found['stages']['video']['tflop'] > 0
  best = averages.compare(runs['large'], (0.05, 0.07, 0.10), num=4)
  assert np.isfinite(list(best['losses']['0.07'].values())).all()
  with pytest.raises(errors.UsageError, match='enlarges smaller videos'):
    diagnosis.diagnose(runs['large'])
