"""The whole loop, in small: stop anywhere, go on, and nothing has changed.

Stops of which others have the like are slow, some minutes:

  bash launch/test.sh -m slow tests/train_test.py
"""

import json
import shutil

import jax
import numpy as np
import pytest
import tiny_config
import tiny_train

from vdm import train
from vdm.checkpoints import manager
from vdm.config import schema
from vdm.config import serialize
from vdm.preparation import prepare_file
from vdm.training import resume
from vdm.training import starts
from vdm.training import writer

# Values of a row that tell of the machine, not of the training.
OF_THE_MACHINE = {
  'seconds_per_step',
  'train_seconds',
  'clips_per_second',
  'data_wait_share',
  'tflops_per_second',
  'host_rss_peak_gib',
  'device_peak_gib',
  'compile_seconds',
  'tflops_per_step',  # In the row of a step that had to be compiled.
}


def rows(workdir):
  """{(step, kind of row): values that training decides}."""
  found = {}
  for row in writer.read_rows(workdir):
    known = ('loss', 'val_psnr', 'val_loss', 'small_score/motion')
    kinds = [k for k in known if k in row]
    kind = kinds[0] if kinds else 'resumed_from'
    found[row['step'], kind] = {
      k: v for k, v in row.items() if k not in OF_THE_MACHINE
    }
  return found


def restored(workdir):
  """The last checkpoint's parameters, moments and averages."""
  with manager.Checkpoints(workdir / 'checkpoints', read_only=True) as store:
    names = ('params', 'opt_state', 'ema')
    return {name: store.restore_item(name)[:2] for name in names}


def test_run_leaves_what_it_promises(finished_run):
  logged = rows(finished_run)
  steps = [step for step, kind in logged if kind == 'loss']
  assert steps == list(range(1, 13))  # From step one, no step twice.
  assert {'val_loss', 'val_loss/logsnr_+0', 'val_loss_of_zero/logsnr_+0'} <= (
    logged[12, 'val_loss'].keys()
  )
  # Two steps of `motion`; every second of `video` and its last.
  scored = [step for step, kind in logged if kind == 'small_score/motion']
  assert scored == [7, 9, 11, 12]
  assert np.isfinite(list(logged[12, 'small_score/motion'].values())[2:]).all()
  for name in ('config.json', 'autoencoder/weights.npz', 'final/grid.mp4'):
    assert (finished_run / name).exists(), name
  for step in (3, 5, 7, 12):  # Every stage ends with something to look at.
    assert (finished_run / f'samples/step_{step:08d}/sheet.png').exists()
  metrics = json.loads((finished_run / 'final/metrics.json').read_text())
  assert metrics['synthetic_truth']['real']['label_agreement'] == 1.0
  last = logged[12, 'loss']
  assert last['train_clips'] == 12 * 8 and last['train_tflop'] > 0
  (start,) = starts.read(finished_run)
  assert start['step'] == 0 and start['versions']['jax'] == jax.__version__


def test_the_best_of_the_last_stage_is_kept(finished_run):
  logged = rows(finished_run)
  with manager.Checkpoints(finished_run / 'best', read_only=True) as store:
    scores = {
      step: logged[step, 'small_score/motion']['small_score/motion']
      for step in (9, 11, 12)
    }
    best = min(scores, key=lambda step: (scores[step], -step))
    assert store.best() == best
    assert store.read_meta(best)['score'] == {
      'measure': 'video/small_score/motion',
      'value': scores[best],
    }
    assert store.steps() == [best]
  with manager.Checkpoints(
    finished_run / 'checkpoints', read_only=True
  ) as store:
    assert store.steps() == [7, 12]  # Whole states, none of them for a score.
    _, states, _ = store.restore({'ema': None}, 12)
  if best == 12:
    with manager.Checkpoints(finished_run / 'best', read_only=True) as store:
      _, averages, _ = store.restore_item('ema')
    jax.tree.map(np.testing.assert_array_equal, averages, states['ema'])


def test_final_samples_are_made_of_seeds_and_labels(finished_run):
  with np.load(
    finished_run / 'final/samples.npz', allow_pickle=False
  ) as arrays:
    assert arrays['videos'].shape == (8, 4, 16, 16, 3)
    assert arrays['videos'].dtype == np.uint8
    assert list(arrays['labels']) == list(range(8))
    assert list(arrays['seeds']) == list(range(8))
    assert arrays['label_names'][0] == 'right'


@pytest.mark.parametrize(
  'polls, checks, steps',
  [
    pytest.param(1, 99, 1, marks=pytest.mark.slow),
    (3, 99, 3),  # And stops at 9, as it is asked to.
    pytest.param(12, 99, 9, marks=pytest.mark.slow),
    # Resumed where the second is; faults/kill_test.py stops such a preview.
    pytest.param(99, 2, 3, marks=pytest.mark.slow),
    pytest.param(99, 9, 5, marks=pytest.mark.slow),
  ],
)
def test_stopped_and_resumed_run_is_the_uninterrupted_one(
  polls, checks, steps, finished_run, data_root, tmp_path
):
  """In the middle of stages (1, 9) and at a border to a new objective (3).

  Also inside of a preview (2 checks) and of an evaluation (9) at borders.
  """
  config = tiny_config.make_config(data_root)
  tiny_train.train_until(config, tmp_path, polls, checks)
  # Lines past the checkpoint, the last one torn, as after a kill.
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write(json.dumps({'step': steps + 1, 'stage': 'x', 'loss': 9.0}))
    file.write('\n{"step": 99, "sta')
  stops = [9] if polls == 3 else []
  for step in stops:
    assert train.train(config, tmp_path, stop_at=step) == 0
    assert not (tmp_path / 'final').exists()
    assert max(r['step'] for r in writer.read_rows(tmp_path)) == step
  assert train.train(config, tmp_path) == 0
  resumed = [r for r in writer.read_rows(tmp_path) if 'resumed_from' in r]
  assert [r['resumed_from'] for r in resumed] == [steps, *stops]
  ours, theirs = rows(tmp_path), rows(finished_run)
  for key in theirs:
    assert {**ours[key], 'bad_records': 0} == {**theirs[key], 'bad_records': 0}
  jax.tree.map(
    np.testing.assert_array_equal, restored(tmp_path), restored(finished_run)
  )
  bests = []
  for folder in (tmp_path, finished_run):
    with manager.Checkpoints(folder / 'best', read_only=True) as store:
      bests.append((store.best(), store.restore_item('ema')[1]))
  jax.tree.map(np.testing.assert_array_equal, *bests)
  for name in ('videos', 'labels'):
    arrays = [
      np.load(folder / 'final/samples.npz', allow_pickle=False)[name]
      for folder in (tmp_path, finished_run)
    ]
    np.testing.assert_array_equal(*arrays)


def test_finished_run_trains_no_more(finished_run, data_root):
  before = (finished_run / 'metrics.jsonl').read_text()
  made = (finished_run / 'final/samples.npz').stat().st_mtime_ns
  assert train.train(tiny_config.make_config(data_root), finished_run) == 0
  after = (finished_run / 'metrics.jsonl').read_text()
  assert after.startswith(before)
  assert 'loss' not in after[len(before) :]
  assert (finished_run / 'final/samples.npz').stat().st_mtime_ns == made


def test_other_settings_of_the_sampler_make_the_last_videos_anew(
  finished_run, data_root, tmp_path
):
  workdir = tmp_path / 'copy'
  shutil.copytree(finished_run, workdir)
  config = tiny_config.make_config(data_root)
  config.sample.guidance = 7.0
  assert train.train(config, workdir) == 0
  new, old = (
    np.load(folder / 'final/samples.npz')['videos']
    for folder in (workdir, finished_run)
  )
  assert not np.array_equal(new, old)
  metrics = json.loads((workdir / 'final/metrics.json').read_text())
  assert metrics['protocol']['sample']['guidance'] == 7.0


def test_another_seed_is_refused(finished_run, data_root):
  config = tiny_config.make_config(data_root)
  config.seed = 1
  with pytest.raises(resume.ResumeError, match='seed: 0 -> 1'):
    train.train(config, finished_run)


def test_a_refusal_to_resume_changes_nothing(finished_run, data_root, tmp_path):
  """What the checkpoint refuses, not the keys: both are asked first."""
  workdir = shutil.copytree(finished_run, tmp_path / 'copy')
  before = (workdir / 'config.json').read_text()
  config = tiny_config.make_config(data_root)
  config.train.order = ('autoencoder', 'image')
  with pytest.raises(resume.ResumeError, match='train.order no longer names'):
    train.train(config, workdir, accept_changes=True)
  assert (workdir / 'config.json').read_text() == before


def test_every_key_is_read_by_something(finished_run):
  read = set(json.loads((finished_run / 'keys_read.json').read_text()))
  read |= {
    'source',  # Of videos: builders_test, ucf101_test, video_folder_test.
    'resolution',
    'width',  # As items of a group: sizes_test.
    *prepare_file.SETTINGS,  # Of videos: prepare_file_test.
    *schema.default().data.screening,  # Screening_test.
    *schema.default().data.limits,  # Prepare_file_test, workers_test.
    *schema.default().data.captions,  # Captions_test.
    *schema.default().model.text,  # Text_test, text_run_test.
    'texts',  # Text_cache_test.
    'group',
    'validation',
    'clip_frames',  # Video_folder_test.
    'follow_links',  # Of videos: video_folder_test.
    'load',  # Another run's autoencoder: frozen_test.
    'weights',  # A published one's: pretrained_test.
    'weights_sha256',
    'norm_groups',  # Autoencoder_kl_test.
    'scaling_factor',  # autoencoder_kl_test.
    'shift_factor',
    'architecture',  # Of published image models: image_unets_test.
    'adapter_rank',
    'adapter_alpha',
    'levels',  # Of an FSQ bottleneck: kl_test.
    'muon_learning_rate',  # The run has AdamW: optim_test, step_test.
    'muon_momentum',
    # Of masked tokens: tokens_objective_test, token_transformer_test.
    *schema.default().model.transformer,
    *schema.default().tokens,
    *schema.default().model.low,  # Of a smaller video: cascade_test.
    'tighten',
    'times',
    'huber',  # Of a consistency stage: consistency_test.
    'cpu_devices',  # By main, before there is a device: config_test.
  }
  keys = serialize.flatten(tiny_config.make_config(''))
  assert [key for key in keys if key.split('.')[-1] not in read] == []
