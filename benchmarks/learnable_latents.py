"""What makes latents easy to learn from: the synthetic demo, told apart.

  python benchmarks/learnable_latents.py --folder runs/learnable \
      --variants base,channel_scale,equivariance --record RECORD.json

Each variant trains an autoencoder of configs/synthetic.py with some values
changed, encodes the data set once, trains the video stage for the same number
of steps on the cached latents, and has its samples judged against what is
known of the scenes (see `vdm.metrics.synthetic_truth`). The same command
resumes; variants that are finished are only read.
"""

import itertools
import json
import os
import pathlib
import sys

from absl import app
from absl import flags
import common

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

VARIANTS = {
  'base': {},
  'channel_scale': {'scale': 'channel'},
  'equivariance': {'equivariance_weight': 0.25},
  'kl_less': {'kl_weight': 5e-4},
  'kl_more': {'kl_weight': 5e-2},
  'channels_4': {'channels': 4},
  'channels_16': {'channels': 16},
}

_FOLDER = flags.DEFINE_string('folder', None, 'Of the runs.', required=True)
_VARIANTS = flags.DEFINE_list('variants', list(VARIANTS), 'Which ones.')
_STEPS = flags.DEFINE_integer('steps', 600, 'Of the video stage.')
_CODEC_STEPS = flags.DEFINE_integer('codec_steps', 1500, "Autoencoder's.")
_SAMPLES = flags.DEFINE_integer('samples', 128, 'To judge.')
_SEEDS = flags.DEFINE_list('seeds', ['0'], 'Each variant is run with each.')
_DATA = flags.DEFINE_string('data', 'data', 'Where the data set is built.')
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')


def make_config(changes, seed):
  """The demo's configuration with an autoencoder's values changed."""
  config = common.load_config('synthetic')
  config.seed = seed
  config.data.root = _DATA.value
  config.autoencoder.update(changes)
  config.sample.final = _SAMPLES.value
  config.train.update(
    tensorboard=False,
    eval_every=10_000,
    preview_every=10_000,
    save_every=10_000,
    save_minutes=2.0,
  )
  config.stages.autoencoder.steps = _CODEC_STEPS.value
  config.stages.video.steps = _STEPS.value
  return config


def run(name, seed):
  """Trains and judges one variant; returns what there is to say of it."""
  from vdm import train
  from vdm.training import cache_latents

  folder = pathlib.Path(_FOLDER.value) / f'{name}_{seed}'
  config = make_config(VARIANTS[name], seed)
  codec = config.copy_and_resolve_references()
  codec.train.order = ('autoencoder',)
  if train.train(codec, folder / 'codec'):
    sys.exit(train.STOPPED)
  config.train.order = ('video',)
  config.autoencoder.load = str(folder / 'codec')
  config.data.latents = str(folder / 'latents')
  cache_latents.build(config, folder / 'codec')
  if train.train(config, folder / 'video'):
    sys.exit(train.STOPPED)
  report = json.loads((folder / 'codec/autoencoder/report.json').read_text())
  metrics = json.loads((folder / 'video/final/metrics.json').read_text())
  return {
    'changes': VARIANTS[name],
    'reconstruction': report['mean']['kl'],
    'latents': report['latents'],
    'samples': metrics['synthetic_truth']['samples'],
    'reconstructed': metrics['synthetic_truth']['reconstruction'],
  }


def main(argv):
  del argv
  from vdm.common import console

  console.start()
  rows = {}
  for seed, name in itertools.product(map(int, _SEEDS.value), _VARIANTS.value):
    row = rows[f'{name}_{seed}'] = run(name, seed)
    shown = {
      key: round(value, 4)
      for key, value in row['samples'].items()
      if isinstance(value, float)
    }
    psnr = row['reconstruction']['psnr']
    print(f'{name}, seed {seed}: {psnr:.2f} dB, {shown}', flush=True)
    record = {
      **common.environment(),
      'steps': _STEPS.value,
      'samples': _SAMPLES.value,
      'variants': rows,
    }
    common.write(_RECORD.value, record)


if __name__ == '__main__':
  app.run(main)
