"""Trains the stages of a run, from wherever its folder says it is.

The loop knows stages and objectives and no network. All it does is a function
of the step: a run that was stopped, by whatever, goes on with the same
numbers when the same command is given again.
"""

import math
import time
from typing import Any, NamedTuple

from absl import logging
from etils import epath
import jax

from vdm import config_check
from vdm import reconstruction
from vdm import score
from vdm.data import builders
from vdm.training import begin
from vdm.training import checkpoints
from vdm.training import frozen as frozen_lib
from vdm.training import inputs
from vdm.training import meters
from vdm.training import objectives
from vdm.training import previews
from vdm.training import resume
from vdm.training import sharding
from vdm.training import signals
from vdm.training import stage_steps
from vdm.training import stages
from vdm.training import state as state_lib
from vdm.training import streams
from vdm.training import writer as writer_lib

STOPPED = 75  # Exit code: run the same command again.


class Run(NamedTuple):
  """What all stages of a run share."""

  config: Any
  workdir: epath.Path
  sources: dict[str, Any]  # Clips of 'train' and of 'validation'.
  mesh: jax.sharding.Mesh
  store: checkpoints.Checkpoints
  writer: writer_lib.Writer
  stop: signals.StopSignal


def train(config, workdir):
  """Trains until the last stage is done.

  Args:
    config: the run's, see `vdm.config`.
    workdir: the run's folder; everything it makes lies in there.

  Returns:
    0 where the run is finished, `STOPPED` where a signal ended it early.
  """
  workdir = epath.Path(workdir)
  config_check.validate(config)
  config_check.check_devices(config, jax.device_count(), jax.process_count())
  data = builders.ensure(config.data)
  sources = {
    split: builders.open_source(data, split, config.data.split_list)
    for split in ('train', 'validation')
  }
  info = sources['train'].info
  mesh = sharding.make_mesh(config.train.fsdp)

  with (
    checkpoints.Checkpoints(
      workdir / 'checkpoints', keep=config.train.keep
    ) as store,
    writer_lib.Writer(workdir, tensorboard=config.train.tensorboard) as writer,
  ):
    run = Run(
      config, workdir, sources, mesh, store, writer, signals.StopSignal()
    )
    newest = store.latest()
    began_in = None if newest is None else store.read_meta(newest)['stage']
    resume.claim(config, workdir / 'config.json', began_in, info['label_names'])
    step, previous, state = begin.restore(
      config, store, mesh, info['fingerprint']
    )
    writer.rewind(step)
    spans = stages.spans(config)
    if previous is not None:
      spans = spans[spans.index(previous) :]
      writer.write(step, previous.name, {'resumed_from': step})
      logging.info('resumed_from %d, in stage %s', step, previous.name)

    for span in spans:
      objective = objectives.make_objective(config, span.stage, mesh)
      if previous is None or previous.stage.objective != span.stage.objective:
        state = begin.fresh(
          config,
          objective,
          streams.stream(config, 'init', span.stage.objective),
          inputs.fixed_clips(
            config, sources['train'], span, config.autoencoder.statistics_clips
          ),
          mesh,
        )
      step = began = max(step, span.start)
      step, state = train_stage(run, span, previous, objective, step, state)
      if (span is not spans[-1] and run.stop.received()) or step < span.stop:
        logging.info('Stopped early: the same command goes on from here.')
        return STOPPED
      if span.stage.objective == 'autoencoder':
        store.wait()  # It belongs to the checkpoint of the stage's end.
        frozen_lib.freeze(
          config, sources['train'], span, state, workdir, trained=step > began
        )
        report_autoencoder(run, span)
      previous = span
    store.wait()
    finish(run, previous, state)
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
  frozen, fingerprint = frozen_lib.ensure(
    config, source, span, run.workdir, run.mesh
  )
  steps = stage_steps.StageSteps(
    config, run.mesh, span, objective, frozen, state
  )
  for line in stages.describe(span, previous, state.params, steps.trained[0]):
    logging.info('%s', line)
  if step == span.stop:
    return step, state
  held_out = inputs.held_out_clips(
    config, run.sources, span, config.train.eval_clips
  )
  small_score = score.make_small_score(
    config,
    stage,
    objective,
    lambda: inputs.held_out_clips(config, run.sources, span, config.score.num),
  )
  meter = meters.Meter(stage.batch, config.train.compute_dtype)
  row, saved_at = None, time.monotonic()
  frame_rate = source.info['frame_rate'] / config.data.stride

  with inputs.make_batches(
    config, source, span, step - span.start, fingerprint
  ) as batches:
    while step < span.stop:
      n = step - span.start
      batch = meter.wait(lambda: next(batches))
      state, metrics, cost = steps(state, batch, n)
      meter.count(steps.tflops, compiled=bool(cost))
      step, n = step + 1, n + 1
      # The last row's numbers are fetched now that the next step is running.
      if row:
        write_row(run, span, *row, meter)
        row = None

      stopping = run.stop.received()
      evaluating, previewing, saving = (
        step == span.stop or n % every == 0
        for every in (
          config.train.eval_every,
          config.train.preview_every,
          config.train.save_every,
        )
      )
      scoring = small_score is not None and (
        step == span.stop or n % config.score.every == 0
      )
      saving |= stopping or time_to_save(config, saved_at)
      saving |= scoring and config.score.best != 'none'
      if n == 1 or n % config.train.log_every == 0 or step == span.stop:
        row = (step, metrics, {'bad_records': batches.bad_records, **cost})
        if evaluating or previewing or scoring or saving:
          write_row(run, span, *row, meter)
          row = None
      if evaluating:
        average = state_lib.averaged(state, config.optim.ema[-1])
        values = objective.validate(average, frozen, held_out)
        run.writer.write(step, span.name, values)
        logging.info('%s', meters.line(span, n, values))
      if previewing:
        average = state_lib.averaged(state, config.sample.ema)
        clips = objective.preview(average, frozen, held_out)
        folder = run.workdir / 'samples' / f'step_{step:08d}'
        gif = previews.write(folder, clips, frame_rate)
        run.writer.write_gifs(step, {'samples': gif} if gif else {})
      scores = {}
      if scoring:
        average = state_lib.averaged(state, config.sample.ema)
        scores = small_score(average, frozen)
        run.writer.write(step, span.name, scores)
        logging.info('%s', meters.line(span, n, scores))
      run.store.check()
      if saving:
        save(run, span, step, state, scores)
        saved_at = time.monotonic()
      if evaluating or previewing or scoring or saving:
        meter.restart()
      if stopping:
        break
  return step, state


def write_row(run, span, step, metrics, extra, meter):
  """Writes a row of the log and the progress line.

  Raises:
    FloatingPointError: the loss is not a number.
  """
  values = {}
  for name, value in sharding.to_host(metrics).items():
    if not isinstance(value, tuple):
      values[name] = float(value)
    elif value[1] > 0:  # A noise level that no clip had has no loss.
      values[name] = float(value[0] / value[1])
  rates = meter.read()
  run.writer.write(step, span.name, {**values, **rates, **extra})
  if not math.isfinite(values['loss']):
    raise FloatingPointError(
      f'The loss is {values["loss"]} at step {step}: lower '
      f'stages.{span.name}.learning_rate or train in float32 '
      '(train.compute_dtype); the checkpoints before it are sound.'
    )
  logging.info('%s', meters.line(span, step - span.start, values, rates))


def save(run, span, step, state, scores):
  """Begins to write a checkpoint; later calls of the store say if it failed.

  Args:
    run: what the stages share.
    span: the stage.
    step: global step.
    state: `state.TrainState` at it.
    scores: {name: number} of this step, or nothing.
  """
  run.writer.flush()
  meta = {
    'stage': span.name,
    'objective': span.stage.objective,
    'dataset': run.sources['train'].info['fingerprint'],
  }
  name = f'small_score/{run.config.score.best}'
  if name in scores:
    measure = f'{span.name}/{name}'
    meta['score'] = {'measure': measure, 'value': scores[name]}
  run.store.save(step, state._asdict(), meta)


def time_to_save(config, saved_at):
  """Whether the last checkpoint is too old.

  Clocks differ between hosts, which must save together: with several, the
  steps alone decide.
  """
  seconds = 60 * config.train.save_minutes
  return jax.process_count() == 1 and time.monotonic() - saved_at > seconds


def report_autoencoder(run, span):
  """Measures the frozen autoencoder on held-out clips, once."""
  config, folder = run.config, run.workdir / 'autoencoder'
  if frozen_lib.agreed((folder / 'report.json').exists()):
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
  frozen, _ = frozen_lib.ensure(
    config, sources['train'], span, run.workdir, run.mesh
  )
  score.final(
    config,
    span.stage,
    state_lib.averaged(state, config.sample.ema),
    frozen,
    sources['train' if config.data.fixed_clips else 'validation'],
    lambda: inputs.held_out_clips(config, sources, span, config.sample.final),
    run.mesh,
    run.workdir / 'final',
    span.stop,
  )
