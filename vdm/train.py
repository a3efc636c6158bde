"""Trains the stages of a run, from wherever its folder says it is.

The loop knows stages and objectives and no network. All it does is a function
of the step: a run that was stopped, by whatever, goes on with the same
numbers when the same command is given again.
"""

import time
from typing import Any, NamedTuple

from absl import logging
from etils import epath
import jax

from vdm.checkpoints import manager
from vdm.config import check
from vdm.data import builders
from vdm.evaluation import final_score
from vdm.evaluation import reconstruction
from vdm.multihost import arrays
from vdm.multihost import coordination
from vdm.multihost import heartbeat
from vdm.multihost import preemption
from vdm.preparation import datasets
from vdm.training import autoencoder_stage
from vdm.training import begin
from vdm.training import inputs
from vdm.training import nonfinite
from vdm.training import objectives
from vdm.training import previews
from vdm.training import resume
from vdm.training import sharding
from vdm.training import stage_steps
from vdm.training import stages
from vdm.training import streams
from vdm.training import tally as tally_lib
from vdm.training import throughput
from vdm.training import train_state
from vdm.training import writer as writer_lib

STOPPED = coordination.STOPPED  # Exit code: run the same command again.


class Run(NamedTuple):
  """What all stages of a run share."""

  config: Any
  workdir: epath.Path
  sources: dict[str, Any]  # Clips of 'train' and of 'validation'.
  mesh: jax.sharding.Mesh
  store: manager.Checkpoints
  writer: writer_lib.Writer
  stop: preemption.StopSignal
  tally: tally_lib.Tally
  resumed: dict[str, Any]  # `meta` of the checkpoint that the run is from.


def train(config, workdir, accept_changes=False):
  """Trains until the last stage is done.

  Args:
    config: the run's, see `vdm.config`.
    workdir: the run's folder; everything it makes lies in there.
    accept_changes: goes on with a run of another configuration or data set.

  Returns:
    0 where the run is finished, `STOPPED` where a signal ended it early.
  """
  workdir = epath.Path(workdir)
  check.validate(config)
  check.check_devices(config, jax.device_count(), jax.process_count())
  options = config.train
  with (
    heartbeat.Watch(
      options.peer_seconds, 60 * options.barrier_minutes
    ) as health,
    preemption.StopSignal(health.vote) as stop,
  ):
    data = datasets.ensure(config.data)
    sources = {
      split: builders.open_source(data, split, config.data.split_list)
      for split in ('train', 'validation')
    }
    with (
      manager.Checkpoints(
        workdir / 'checkpoints',
        keep=options.keep,
        keep_every=options.keep_every,
      ) as store,
      writer_lib.make_writer(workdir, options.tensorboard) as writer,
      health.reporting(),
    ):
      mesh = sharding.make_mesh(options.fsdp)
      tally = tally_lib.Tally(options.max_skipped)
      return train_stages(
        Run(config, workdir, sources, mesh, store, writer, stop, tally, {}),
        accept_changes,
      )


def train_stages(run, accept_changes):
  """Trains from the newest sound checkpoint on; see `train`."""
  config, store = run.config, run.store
  info = run.sources['train'].info
  newest = store.latest()
  began_in = None if newest is None else store.read_meta(newest)['stage']
  resume.claim(
    config,
    run.workdir / 'config.json',
    began_in,
    info['label_names'],
    accept_changes,
  )
  step, previous, state = begin.restore(
    config, store, run.mesh, info['fingerprint'], accept_changes
  )
  spans = stages.spans(config)
  if previous is not None:
    run = run._replace(resumed=store.read_meta(step))
    run.tally.resume(run.resumed)
    spans = spans[spans.index(previous) :]
  # An evaluation that a signal broke off is made again.
  again = ('val_', 'small_score/') if run.resumed.get('unseen') else ()
  run.writer.rewind(step, again)
  if previous is not None:
    run.writer.write(step, previous.name, {'resumed_from': step})
    logging.info('resumed_from %d, in stage %s', step, previous.name)

  for span in spans:
    objective = objectives.make_objective(
      config, span.stage, run.mesh, run.stop.check
    )
    if previous is None or previous.stage.objective != span.stage.objective:
      state = begin.fresh(
        config,
        objective,
        streams.stream(config, 'init', span.stage.objective),
        inputs.load_eval_clips(
          config,
          run.sources['train'],
          span,
          config.autoencoder.statistics_clips,
        ),
        run.mesh,
      )
    step = began = max(step, span.start)
    step, state = train_stage(run, span, previous, objective, step, state)
    if (span is not spans[-1] and run.stop.received()) or step < span.stop:
      logging.info('Stopped early: the same command goes on from here.')
      return STOPPED
    if span.stage.objective == 'autoencoder':
      store.wait()  # It belongs to the checkpoint of the stage's end.
      autoencoder_stage.freeze(
        config,
        run.sources['train'],
        span,
        state,
        run.workdir,
        trained=step > began,
      )
      report_autoencoder(run, span)
    previous = span
  store.wait()
  try:
    finish(run, previous, state)
  except preemption.Stopped:
    logging.info('Stopped early: the same command makes the videos.')
    return STOPPED
  return 0


def train_stage(run, span, previous, objective, step, state):
  """Trains one stage from a global step on.

  Args:
    run: what the stages share.
    span: the stage.
    previous: the one before it, or itself where it was resumed; None first.
    objective: the stage's.
    step: global step that `state` is at.
    state: `state.TrainState`, donated.

  Returns:
    (step, state); the step is before `span.stop` where a signal came.
  """
  config, stage = run.config, span.stage
  source = run.sources['train']
  frozen, fingerprint = autoencoder_stage.ensure(
    config, source, span, run.workdir, run.mesh
  )
  steps = stage_steps.StageSteps(
    config, run.mesh, span, objective, frozen, state
  )
  for line in stages.describe(span, previous, state.params, steps.trained[0]):
    logging.info('%s', line)
  # What a signal broke off before the checkpoint was saved comes first.
  unseen = previous == span and run.resumed.get('unseen')
  if step == span.stop and not unseen:
    return step, state
  held_out = inputs.held_out_clips(
    config, run.sources, span, config.train.eval_clips
  )
  small_score = final_score.make_small_score(
    config,
    stage,
    objective,
    lambda: inputs.held_out_clips(config, run.sources, span, config.score.num),
  )
  view = View(objective, frozen, held_out, small_score)
  if unseen and look(run, span, view, step, state) is None:
    return step, state
  if step == span.stop:
    return step, state
  tally, bad_before = run.tally, run.tally.bad_records
  meter = throughput.Meter(stage.batch, config.train.compute_dtype)
  row, saved_at = None, time.monotonic()

  with inputs.make_batches(
    config, source, span, step - span.start, fingerprint
  ) as batches:
    while step < span.stop:
      n = step - span.start
      batch = meter.wait(lambda: next(batches))
      tally.bad_records = bad_before + batches.bad_records
      state, metrics, cost = steps(state, batch, n)
      meter.count(steps.tflops, compiled=bool(cost))
      step, n = step + 1, n + 1
      if tally.skips.add(step, metrics.pop('skipped')):
        raise nonfinite.take_down(
          config, source, span, steps, state, batch, n - 1, run.workdir
        )
      # The last row's numbers are fetched now that the next step is running.
      if row:
        write_row(run, span, *row, meter)
        row = None

      stopping = run.stop.received()
      looks = view.due(config, span, step)
      logs = step == span.stop or n == 1 or n % config.train.log_every == 0
      saves = step == span.stop or n % config.train.save_every == 0
      saves |= 'score' in looks and config.score.best != 'none'
      saves |= stopping or time_to_save(config, saved_at, logs)
      if logs:
        row = (step, metrics, {'bad_records': tally.bad_records, **cost})
        if looks or saves:
          write_row(run, span, *row, meter)
          row = None
      scores = {}
      if looks:
        scores = None if stopping else look(run, span, view, step, state)
      run.store.check()
      if saves or scores is None:
        save(run, span, step, state, scores)
        saved_at = time.monotonic()
      if looks or saves:
        meter.restart()
      if stopping or scores is None:
        break
  return step, state


class View(NamedTuple):
  """With what a stage is looked at on its way."""

  objective: objectives.Objective
  frozen: Any
  held_out: dict[str, Any]  # Clips.
  small_score: Any  # None: none is made.

  def due(self, config, span, step):
    """What a step ends with: some of evaluation, preview and score."""
    every = {
      'evaluation': config.train.eval_every,
      'preview': config.train.preview_every,
    }
    if self.small_score is not None:
      every['score'] = config.score.every
    n, last = step - span.start, step == span.stop
    return [name for name, k in every.items() if last or n % k == 0]


def look(run, span, view, step, state):
  """Evaluates, makes samples and scores, as far as the step is one for it.

  Returns:
    {name: number} of the small score; None where a signal broke it off.
  """
  config, scores = run.config, {}
  due = view.due(config, span, step)
  try:
    if 'evaluation' in due:
      average = train_state.averaged(state, config.optim.ema[-1])
      values = view.objective.validate(average, view.frozen, view.held_out)
      run.writer.write(step, span.name, values)
      logging.info('%s', throughput.line(span, step - span.start, values))
    average = train_state.averaged(state, config.sample.ema)
    if 'preview' in due:
      clips = view.objective.preview(average, view.frozen, view.held_out)
      frame_rate = run.sources['train'].info['frame_rate'] / config.data.stride
      folder = run.workdir / 'samples' / f'step_{step:08d}'
      gif = previews.write(folder, clips, frame_rate)
      run.writer.write_gifs(step, {'samples': gif} if gif else {})
    if 'score' in due:
      scores = view.small_score(average, view.frozen)
      run.writer.write(step, span.name, scores)
      logging.info('%s', throughput.line(span, step - span.start, scores))
  except preemption.Stopped:
    return None
  return scores


def write_row(run, span, step, metrics, extra, meter):
  """Writes a row of the log and the progress line."""
  values = {}
  for name, value in arrays.to_host(metrics).items():
    if not isinstance(value, tuple):
      values[name] = float(value)
    elif value[1] > 0:  # A noise level that no clip had has no loss.
      values[name] = float(value[0] / value[1])
  rates = meter.read()
  values |= rates | extra | run.tally.over_all(step, extra['bad_records'])
  run.writer.write(step, span.name, values)
  logging.info('%s', throughput.line(span, step - span.start, values, rates))


def save(run, span, step, state, scores):
  """Begins to write a checkpoint; later calls of the store say if it failed.

  Args:
    run: what the stages share.
    span: the stage.
    step: global step.
    state: `state.TrainState` at it.
    scores: {name: number} of this step, or nothing; None where a signal broke
      off what the step ends with.
  """
  run.writer.flush()
  meta = {
    'stage': span.name,
    'objective': span.stage.objective,
    'dataset': run.sources['train'].info['fingerprint'],
    # Its evaluation and samples are still to be made.
    'unseen': scores is None,
    **run.tally.over_all(step, run.tally.bad_records),
  }
  name = f'small_score/{run.config.score.best}'
  if scores and name in scores:
    measure = f'{span.name}/{name}'
    meta['score'] = {'measure': measure, 'value': scores[name]}
  run.store.save(step, state._asdict(), meta)


def time_to_save(config, saved_at, logs):
  """Whether the last checkpoint is too old.

  Clocks differ between hosts, which must save together: with several, the
  first one's decides, at the steps that are logged.
  """
  late = time.monotonic() - saved_at > 60 * config.train.save_minutes
  if jax.process_count() == 1:
    return late
  return logs and coordination.first_says('saving by time', late)


def report_autoencoder(run, span):
  """Measures the frozen autoencoder on held-out clips, once."""
  config, folder = run.config, run.workdir / 'autoencoder'
  if coordination.first_says('the report', (folder / 'report.json').exists()):
    return
  content = reconstruction.report(
    folder,
    run.sources['train' if config.data.fixed_clips else 'validation'],
    folder,
    num=config.data.fixed_clips or config.train.eval_clips,
    resolution=span.stage.resolution,
    stride=config.data.stride,
    mesh=run.mesh,
  )
  logging.info('\n%s', reconstruction.table(content))


def finish(run, span, state):
  """Makes the run's last videos and puts numbers to them, once."""
  if span.stage.objective != 'diffusion':
    logging.info('Finished: the autoencoder is in %s.', run.workdir)
    return
  config, sources = run.config, run.sources
  frozen, _ = autoencoder_stage.ensure(
    config, sources['train'], span, run.workdir, run.mesh
  )
  final_score.final(
    config,
    span.stage,
    train_state.averaged(state, config.sample.ema),
    frozen,
    sources['train' if config.data.fixed_clips else 'validation'],
    lambda: inputs.held_out_clips(config, sources, span, config.sample.final),
    run.mesh,
    run.workdir / 'final',
    span.stop,
    run.stop.check,
  )
