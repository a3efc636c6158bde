"""What benchmarks of models of synthetic scenes share: samples and numbers."""

import time

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


def sample(model, changes, num, worse=None):
  """Videos, labels and seconds of a clip by two clocks, with one sampler.

  Args:
    model: a `trained.Model`.
    changes: {key of config.sample: value}.
    num: number of videos.
    worse: the model to guide against; None: the model's own, if any.
  """
  import numpy as np

  from vdm import generate
  from vdm import prompts

  config = model.config.copy_and_resolve_references()
  generate.change_sampler(config.sample, changes)
  make = generate.make_generator(
    config, model.stage, worse=worse or model.worse
  )
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


def measured(model, changes, num, real, worse=None):
  """Videos, as `sample` makes them, and what a row says of them."""
  videos, labels, seconds = sample(model, changes, num, worse)
  return videos, {
    'seconds_per_clip': seconds[0],
    'processor_seconds_per_clip': seconds[1],
    'videos': len(videos),
    **measure(model, videos, labels, real['video']),
  }


def show(rows):
  """Rows as text."""
  from vdm.common import tables

  titles = [title for title, _ in COLUMNS.values()]
  lines = [('model', 'method', 'steps', 'processor seconds', *titles)]
  for row in rows:
    # Of few videos the judge may name no shape at all.
    values = [
      f'{k * row[name]:.3g}' if name in row else '-'
      for name, (_, k) in COLUMNS.items()
    ]
    seconds = f'{row["processor_seconds_per_clip"]:.3f}'
    lines.append(
      (row['objective'], row['method'], str(row['steps']), seconds, *values)
    )
  return tables.lay_out(lines)
