"""Folders of runs, written by hand: no training, and any effect."""

import json

import numpy as np
import tiny_config

from vdm.common import files
from vdm.config import serialize
from vdm.media import samples

NAMES = ['right', 'up-right', 'up', 'up-left', 'left', *'abc']
LEVELS = (-6, -3, 0, 3, 6)


def make_config(seed=0, **values):
  """The configuration of a run; `values` are of flat keys, '.' as '__'."""
  config = tiny_config.make_config('data')
  config.seed = seed
  config.stages.autoencoder.steps = 100
  for stage in ('image', 'motion'):
    del config.stages[stage]
  config.train.order = ('autoencoder', 'video')
  config.stages.video.steps = 900
  config.update_from_flattened_dict(
    {name.replace('__', '.'): value for name, value in values.items()}
  )
  return config


def rows_of(config, effect=0.0, noise=0.01, every=10, sums=True):
  """The log of a run whose losses fall.

  Args:
    config: of the run.
    effect: added to every loss.
    noise: standard deviation between seeds.
    every: steps between rows.
    sums: rows have the sums of `vdm.training.spent`.
  """
  rng = np.random.default_rng([config.seed, 5])
  shift = effect + noise * rng.normal()
  has_codec = 'autoencoder' in config.train.order
  first = config.stages.autoencoder.steps if has_codec else 0
  last = config_steps(config)
  rows = []
  for step in [1, *range(every, last + 1, every)]:
    is_codec = step <= first
    value = 0.3 + 0.7 * np.exp(-step / 300) + shift
    row = {'step': step, 'stage': 'autoencoder' if is_codec else 'video'}
    row |= {'loss': value + 0.02 * rng.normal(), 'grad_norm': 1.0}
    if not is_codec:
      names = [f'loss/logsnr_{k:+d}_to_{k + 3:+d}' for k in LEVELS]
      row |= {k: value * (1 + 0.1 * i) for i, k in enumerate(names)}
    row |= {'seconds_per_step': 0.5, 'clips_per_second': 16.0}
    row |= {'tflops_per_second': 0.25, 'data_wait_share': 0.1}
    row |= {'host_rss_peak_gib': 1.5, 'skipped_steps': 0, 'bad_records': 0}
    if sums:
      row |= {'train_seconds': step / 2, 'train_tflop': step / 8}
      row |= {'train_clips': 8.0 * step}
    rows.append(row)
    if not is_codec and (step - first) % 100 == 0:
      levels = {f'val_loss/logsnr_{k:+d}': value for k in LEVELS}
      zeros = {f'val_loss_of_zero/logsnr_{k:+d}': 1.0 for k in LEVELS}
      head = {'step': step, 'stage': 'video'}
      rows.append(head | levels | zeros | {'val_loss': value})
      rows.append(head | {'small_score/motion': 50 * value})
  return rows


def videos(count, seed=0, frames=4, size=16):
  """Random clips."""
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, frames, size, size, 3), np.uint8)


def write(folder, config=None, rows=None, *, agreement=0.9, pictures=False):
  """Writes a finished run and returns its folder.

  Args:
    folder: of the run.
    config: by default `make_config()`.
    rows: of its log; by default `rows_of(config)`.
    agreement: the final number.
    pictures: 'final' for the arrays of final videos, True for previews and
      everything else as well.
  """
  config = make_config() if config is None else config
  rows = rows_of(config) if rows is None else rows
  folder.mkdir(parents=True, exist_ok=True)
  serialize.save(config, folder / 'config.json', NAMES)
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  files.write_text(folder / 'metrics.jsonl', text)
  final = folder / 'final'
  final.mkdir(exist_ok=True)
  truth = {'clips': 8.0, 'label_agreement': agreement, 'speed_ratio': 1.1}
  real = truth | {'label_agreement': 1.0, 'speed_ratio': 1.0}
  content = {
    'step': 1000,
    'protocol': {'dataset': 'synthetic_scenes', 'dataset_fingerprint': 'f00'},
    'synthetic_truth': {'samples': truth, 'real': real},
  }
  labels, seeds = np.arange(8) % 3, np.arange(8)
  made = videos(8, config.seed)
  if pictures == 'final':
    arrays = {'videos': made, 'labels': labels, 'seeds': seeds}
    files.write_npz(final / samples.ARRAYS, arrays)
  elif pictures:
    # Here, so that what stands in for training starts at once.
    from vdm.evaluation import evaluator

    for step in (100, 500, 1000):
      clips = {'real': videos(2), 'samples': videos(2, step)}
      where = folder / f'samples/step_{step:08d}'
      evaluator.write_preview(where, clips, 8.0)
    samples.write(final, made, labels, NAMES, seeds, 8.0, {})
    arrays = {'videos': videos(8), 'reconstructions': videos(8)}
    files.write_npz(final / samples.REAL, arrays | {'labels': labels})
  files.write_json(final / 'metrics.json', content)
  files.write_text(final / samples.FINAL, str(config_steps(config)))
  return folder


def config_steps(config):
  """All steps of a run."""
  return sum(config.stages[name].steps for name in config.train.order)
