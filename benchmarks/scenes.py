"""What benchmarks of models of synthetic scenes share: samples and numbers."""

import contextlib
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


def generator(model, changes, num, worse=None):
  """What makes videos with one sampler: (rows) -> videos, and their labels.

  Args:
    model: a `trained.Model`.
    changes: {key of config.sample: value}.
    num: number of videos, of which a slice of rows is made at a time.
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

  def run(rows):
    own = {name: x[rows] for name, x in cond.items()}
    return make.samples(model.params, model.frozen, own, seeds[rows])

  return run, cond['label']


def sample(model, changes, num, worse=None):
  """Videos, labels and seconds of a clip by two clocks, with one sampler.

  The seconds are medians over batches, each over the clips that it makes. What
  has to be compiled, for whole batches and for a smaller last one, is compiled
  before.

  Args:
    model: see `generator`, like the others.
    changes: likewise.
    num: likewise.
    worse: likewise.
  """
  import numpy as np

  run, labels = generator(model, changes, num, worse)
  batch = changes.get('batch', model.config.sample.batch)
  batches = [
    slice(start, min(start + batch, num)) for start in range(0, num, batch)
  ]
  for rows in {rows.stop - rows.start: rows for rows in batches}.values():
    run(rows)
  videos, seconds = [], []
  for rows in batches:
    began = time.perf_counter(), time.process_time()
    videos.append(run(rows))
    now = time.perf_counter(), time.process_time()
    seconds.append(np.subtract(now, began) / len(videos[-1]))
  seconds = np.median(seconds, axis=0).tolist()
  return np.concatenate(videos), labels, seconds


@contextlib.contextmanager
def counted_rows():
  """Yields a list to which networks add the rows of each of their calls."""
  import jax

  from vdm import models

  counts = []

  def counting(make):
    def make_counting(*args, **options):
      network = make(*args, **options)

      def apply(params, x, *inputs):
        rows = len(x)
        jax.debug.callback(lambda: counts.append(rows))
        return network.apply(params, x, *inputs)

      return network._replace(apply=apply)

    return make_counting

  originals = {
    name: getattr(models, name) for name in ('make_unet', 'make_transformer')
  }
  for name, make in originals.items():
    setattr(models, name, counting(make))
  try:
    yield counts
    jax.effects_barrier()
  finally:
    for name, make in originals.items():
      setattr(models, name, make)


def evaluations(model, changes, worse=None):
  """How often networks are evaluated for one clip, counted where they are.

  Args:
    model: see `generator`, like the others.
    changes: likewise.
    worse: likewise; its evaluations count, too.
  """
  with counted_rows() as counts:
    run, _ = generator(model, changes, 1, worse)
    run(slice(0, 1))
  return sum(counts)


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
