"""Compares models of synthetic scenes by quality against steps of the sampler.

  python benchmarks/few_steps.py --models runs/synthetic,runs/few_steps \
      --record benchmarks/records/my_machine.json

The numbers are those of a run's `final/metrics.json`, of videos with the same
seeds and labels for every model and number of steps. Seconds are of a batch
after the first, those of the processors with all their cores, which other work
on the machine disturbs less. Evaluations are of the network on one clip:
guidance takes two for each.
"""

import itertools
import os
import sys
import time

from absl import app
from absl import flags
import common

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from vdm.common import tables
from vdm.config import flag

_MODELS = flags.DEFINE_list('models', None, 'Runs or exports.', required=True)
_METHODS = flags.DEFINE_list(
  'methods', [], "Samplers; by default each model's own."
)
_STEPS = flags.DEFINE_list('steps', ['1', '2', '4', '8', '20'], 'Of samplers.')
_NUM = flags.DEFINE_integer('num', 128, 'Videos.', lower_bound=2)
_VIDEOS = flags.DEFINE_string('videos', None, 'Folder for some of the videos.')
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')

COLUMNS = {
  'label_agreement': ('agreement, %', 100),
  'present_share': ('present, %', 100),
  'residual_percent': ('residual, %', 1),
  'shape_kept': ('shape kept, %', 100),
  'acceleration': ('tremble, px', 1),
  'colour_drift': ('colour drift, %', 100),
  'spread_hue': ('spread of hues', 1),
  'spread_speed': ('spread of speeds', 1),
}


def sample(model, method, steps, num):
  """Videos, labels and seconds of a clip by two clocks, with one sampler."""
  import numpy as np

  from vdm import generate
  from vdm import prompts

  config = model.config.copy_and_resolve_references()
  generate.change_sampler(config.sample, {'method': method, 'steps': steps})
  make = generate.make_generator(config, model.stage)
  cond = prompts.for_preview(config, model.reader, num).cond
  seeds = config.sample.seed + np.arange(num)
  videos, seconds = [], []
  for start in range(0, num, config.sample.batch):
    rows = slice(start, start + config.sample.batch)
    began = time.perf_counter(), time.process_time()
    videos.append(
      make.samples(
        model.params,
        model.frozen,
        {name: x[rows] for name, x in cond.items()},
        seeds[rows],
      )
    )
    now = time.perf_counter(), time.process_time()
    seconds.append(np.subtract(now, began) / config.sample.batch)
  # The first compiles.
  seconds = np.median(seconds[1:] or seconds, axis=0).tolist()
  return np.concatenate(videos), cond['label'], seconds


def measure(model, videos, labels, real):
  """The laws of the scenes in videos, and what is known of one mover."""
  from vdm.evaluation import synthetic_score
  from vdm.metrics import laws
  from vdm.metrics import synthetic_truth

  world = synthetic_score.world(model.config.data, model.stage)
  found = {}
  for metric, options in ((laws, (world,)), (synthetic_truth, ())):
    ours, theirs = (metric.measure(x, *options) for x in (videos, real))
    found |= metric.summarise(ours, labels, theirs)
  return found


def rows_of(source, real):
  """The numbers of one model, a row for each method and number of steps."""
  from vdm import trained
  from vdm.media import video_files

  model = trained.load(source)
  methods = _METHODS.value or [model.config.sample.method]
  for method, steps in itertools.product(methods, map(int, _STEPS.value)):
    videos, labels, seconds = sample(model, method, steps, _NUM.value)
    per_step = 2 if model.config.sample.guidance != 1 else 1
    row = {
      'model': source,
      'objective': model.stage.objective,
      'step': model.step,
      'method': method,
      'steps': steps,
      'evaluations': steps * per_step,
      'seconds_per_clip': seconds[0],
      'processor_seconds_per_clip': seconds[1],
      'videos': len(videos),
      **measure(model, videos, labels, real['video']),
    }
    if _VIDEOS.value:
      name = f'{model.stage.objective}_{method}_{steps:02d}'
      path = os.path.join(_VIDEOS.value, name)
      video_files.write_grid(path, videos[:32], model.frame_rate, [''] * 32, 8)
    print(show([row]), flush=True)
    yield row


def show(rows):
  """Rows as text."""
  titles = [title for title, _ in COLUMNS.values()]
  lines = [('model', 'method', 'steps', 'processor seconds', *titles)]
  for row in rows:
    values = [f'{k * row[name]:.3g}' for name, (_, k) in COLUMNS.items()]
    seconds = f'{row["processor_seconds_per_clip"]:.3f}'
    lines.append(
      (row['objective'], row['method'], str(row['steps']), seconds, *values)
    )
  return tables.lay_out(lines)


def main(argv):
  del argv

  from vdm import trained
  from vdm.evaluation import real_clips

  model = trained.load(_MODELS.value[0])
  real = real_clips.RealClips(model.config.data, model.stage).same(
    'validation', _NUM.value
  )
  rows = [row for source in _MODELS.value for row in rows_of(source, real)]
  print(show(rows))
  common.write(_RECORD.value, {**common.environment(), 'rows': rows})


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
