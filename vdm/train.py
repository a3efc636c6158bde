"""Trains the stages of a run, from its newest checkpoint on.

The loop knows stages and objectives and no network. Everything it does is a
function of the step: a run that was stopped, for whatever reason, resumes with
the same numbers when the same command is run again.
"""

from collections.abc import Sequence
import functools
import math
from typing import Any, NamedTuple

from absl import logging
from etils import epath
import jax
from ml_collections import ConfigDict

from vdm import prompts
from vdm.checkpoints import manager
from vdm.common import sizes
from vdm.common import vocabulary
from vdm.config import check
from vdm.config import sampling
from vdm.evaluation import evaluator
from vdm.evaluation import final_score
from vdm.evaluation import noised_clips
from vdm.evaluation import reconstruction
from vdm.multihost import arrays
from vdm.multihost import coordination
from vdm.multihost import heartbeat
from vdm.multihost import preemption
from vdm.multihost import workdir_lock
from vdm.trained import run_folder
from vdm.trained import snapshots
from vdm.training import agreement
from vdm.training import autoencoder_stage
from vdm.training import counters
from vdm.training import earlier
from vdm.training import inputs
from vdm.training import motion_range
from vdm.training import nonfinite
from vdm.training import objectives
from vdm.training import preflight
from vdm.training import resume
from vdm.training import sharding
from vdm.training import stage_saver
from vdm.training import stage_steps
from vdm.training import stages
from vdm.training import starts
from vdm.training import step_log
from vdm.training import teacher
from vdm.training import texts
from vdm.training import throughput
from vdm.training import train_state
from vdm.training import writer
from vdm.training.destinations import chosen

STOPPED = coordination.STOPPED  # Exit code: run the same command again.


class Run(NamedTuple):
  """What all stages of a run share."""

  config: ConfigDict
  workdir: epath.Path
  sources: dict[str, Any]  # Clips of 'train' and of 'validation'.
  mesh: jax.sharding.Mesh
  objectives: dict[str, objectives.Objective]  # By the name of the stage.
  store: manager.Checkpoints
  best: manager.Checkpoints | None  # Of the step with the lowest score.
  log: writer.Writer
  signal: preemption.StopSignal
  texts: vocabulary.Reader | None  # Reads captions, if the run does.
  counters: counters.Counters
  command: Sequence[str]
  stop_at: int | None


def train(
  config: ConfigDict,
  workdir: epath.PathLike,
  accept_changes: bool = False,
  command: Sequence[str] = (),
  stop_at: int | None = None,
) -> int:
  """Trains until the last stage is done.

  Args:
    config: the run's, see `vdm.config.schema`.
    workdir: the run's folder; everything it writes is in there.
    accept_changes: resume with another configuration or data set.
    command: arguments of the command, to be recorded.
    stop_at: global step to stop after; None: the last. The steps are the same.

  Returns:
    0 if the run is finished or at `stop_at`, `STOPPED` if a signal stopped it
    early.
  """
  check.validate(config)
  preflight.check_workdir(workdir)
  workdir = epath.Path(workdir)
  check.check_devices(config, jax.device_count(), jax.process_count())
  options = config.train
  with (
    heartbeat.Heartbeat(
      options.peer_seconds, 60 * options.barrier_minutes
    ) as health,
    preemption.StopSignal(health.vote) as signal,
  ):
    agreement.check_config(config)
    chosen.check(config.log)
    # What the run's config.json says is what was used.
    config = config.copy_and_resolve_references()
    config.autoencoder = autoencoder_stage.resolve(
      config.autoencoder, workdir / 'autoencoder'
    )
    config.model = preflight.resolve_model(config, workdir)
    sources = agreement.open_sources(config.data)
    mesh = sharding.make_mesh(options.fsdp)
    made = preflight.check(config, sources, mesh, signal.check)
    config.model.motion_range = motion_range.resolve(
      config, workdir, sources['train']
    )
    with (
      workdir_lock.WorkdirLock(workdir),
      manager.Checkpoints(
        workdir / run_folder.STATES,
        keep=options.keep,
        keep_every=options.keep_every,
      ) as store,
      stage_saver.make_best(config, workdir) as best,
      writer.make_writer(config, workdir) as log,
      health.reporting(),
    ):
      run = Run(
        config=config,
        workdir=workdir,
        sources=sources,
        mesh=mesh,
        objectives=made,
        store=store,
        best=best,
        log=log,
        signal=signal,
        texts=texts.make_reader(config, workdir, sources),
        counters=counters.Counters(options.max_skipped),
        command=command,
        stop_at=stop_at,
      )
      code = train_stages(run, accept_changes)
      for saving in (store, best):
        if saving is not None:
          saving.wait()  # Before a tracker's server is waited for.
      log.close(code)
      return code


def train_stages(run: Run, accept_changes: bool) -> int:
  """Trains from the newest valid checkpoint on; see `train`."""
  config, info = run.config, run.sources['train'].info
  resume.claim(
    config,
    run.workdir / 'config.json',
    run.store.read_meta(),
    info['label_names'],
    accept_changes,
  )
  step, previous, state, meta = resume.restore(
    config, run.store, run.mesh, info['fingerprint'], accept_changes
  )
  starting = previous is None or previous.stage.objective == 'autoencoder'
  if config.train.init_from and starting:
    preflight.check_init_from(config.train.init_from)
  run.counters.resume(meta)
  # An interrupted evaluation is made again as a whole.
  pending = bool(meta.get('pending_evaluation'))
  run.log.rewind(step, ('val_', 'small_score/') if pending else ())
  if coordination.is_first():
    snapshots.forget_after(run.workdir, step)
  if run.best is not None:
    run.best.forget_after(step)
  run.counters.spent.resume(meta, lambda: writer.read_rows(run.workdir))
  starts.record(run.workdir, step, info['fingerprint'], run.command)
  spans = stages.spans(config)
  if previous is not None:
    run.log.write(step, previous.name, {'resumed_from': step})
    logging.info('resumed_from %d, in stage %s', step, previous.name)
    spans = spans[spans.index(previous) :]

  for span in spans:
    if previous is None or previous.stage.objective != span.stage.objective:
      state = begin_stage(run, span, previous, state)
    step = started = max(step, span.start)
    step, state = train_stage(run, span, previous, step, state, pending)
    last, pending = span is spans[-1], False
    ends = last and step == span.stop
    asked = step >= (run.stop_at or math.inf) and not ends
    if asked and not run.signal.received():
      logging.info('At step %d, where it was to stop.', step)
      return 0
    if step < span.stop or (not last and run.signal.received()):
      logging.info('Stopped early: run the same command again to resume.')
      return STOPPED
    if span.stage.objective == 'autoencoder':
      freeze_autoencoder(run, span, state, trained=step > started)
    previous = span
  run.store.wait()
  try:
    finish(run, previous, state)
  except preemption.Stopped:
    logging.info('Stopped early: run the same command again for the videos.')
    return STOPPED
  return 0


def begin_stage(
  run: Run,
  span: stages.Span,
  previous: stages.Span | None,
  state: train_state.TrainState | None,
) -> train_state.TrainState:
  """Returns the state that a stage with another objective begins with.

  Args:
    run: what the stages share.
    span: the stage.
    previous: the one before it, if any.
    state: at its end.
  """
  config, objective = run.config, run.objectives[span.name]
  if span.stage.objective == 'consistency':
    if previous is not None and previous.stage.objective == 'diffusion':
      width = config.sample.ema
      params = arrays.to_host(train_state.averaged(state, width))
      source = {'step': span.start, 'width': width}
    else:
      _, fingerprint = ensure_autoencoder(run, span)
      params, source = teacher.from_source(config, objective, fingerprint)
    teacher.write(run.workdir, params, source)
    return train_state.from_params(config.optim, objective, params, run.mesh)
  return train_state.initialise(
    config.optim,
    objective,
    train_state.stream(config.seed, 'init', span.stage.objective),
    statistics_clips(run, span),
    run.mesh,
    config.train.init_from,
  )


def train_stage(
  run: Run,
  span: stages.Span,
  previous: stages.Span | None,
  step: int,
  state: train_state.TrainState,
  pending_evaluation: bool,
) -> tuple[int, train_state.TrainState]:
  """Trains one stage from a global step on.

  Args:
    run: what the stages share.
    span: the stage.
    previous: the one before it, or itself if it is resumed; None at first.
    step: global step of `state`.
    state: donated.
    pending_evaluation: whether the step's evaluation was interrupted.

  Returns:
    (step, state); the step is before `span.stop` if a signal came, or the run
    is to stop there.
  """
  config, stage, objective = run.config, span.stage, run.objectives[span.name]
  frozen, fingerprint = ensure_autoencoder(run, span)
  if stage.objective == 'consistency':
    frozen['teacher'] = teacher.load(run.workdir, objective, run.mesh)
  steps = stage_steps.StageSteps(
    config.optim,
    config.seed,
    run.mesh,
    span,
    objective,
    frozen,
    state,
  )
  for line in stages.describe(span, previous, state.params, steps.trained[0]):
    logging.info('%s', line)
  stop = span.stop if run.stop_at is None else min(span.stop, run.stop_at)
  if step >= stop and not pending_evaluation:
    return step, state
  evaluate = evaluator.Evaluator(
    config,
    span,
    objective,
    frozen,
    functools.partial(
      inputs.held_out_clips, config, run.sources, span, texts=run.texts
    ),
    run.log,
    run.workdir / 'samples',
    run.sources['train'].info['frame_rate'] / config.data.stride,
    run.sources['train'].info['label_names'],
    noised_clips.make_shape_score(
      sampling.of_stage(config, stage), stage, run.mesh, run.signal.check
    ),
    prompts.configured(config.sample, run.texts, config.sample.num),
    earlier.reader(config, span, run.mesh, run.workdir, step),
  )
  source, bad_before = run.sources['train'], run.counters.bad_records
  saver = stage_saver.StageSaver(
    config,
    span,
    source.info['fingerprint'],
    run.store,
    run.best,
    run.counters,
    run.log,
  )
  if pending_evaluation:
    try:
      saver.save_best(step, state, evaluate(step, state))
    except preemption.Stopped:
      return step, state
  if step >= stop:
    return step, state

  rates = throughput.Throughput(
    stage.batch, config.train.compute_dtype, run.counters.spent
  )
  spans = stages.spans(config)
  log = step_log.StepLog(
    spans[spans.index(span) :],
    config,
    rates,
    run.counters,
    run.log,
  )
  packed = steps.pack(state)
  with inputs.make_batches(
    config, source, span, step - span.start, fingerprint, run.texts
  ) as batches:
    while step < stop:
      # 1. Wait for the data.
      batch = rates.wait(lambda: next(batches))
      run.counters.bad_records = bad_before + batches.bad_records

      # 2. Step.
      packed, metrics = steps(packed, batch, step - span.start)
      rates.count(
        steps.tflops, compile_seconds=steps.cost.get('compile_seconds', 0.0)
      )
      step += 1
      if run.counters.too_many_skipped(step, metrics.pop('skipped')):
        raise nonfinite.dump(
          config, source, steps, steps.unpack(packed), batch, step, run.workdir
        )

      # 3. Log. A row is fetched while the next step runs.
      log.flush()
      stopping, due = run.signal.received(), evaluate.due(step)
      logged = log.due(step)
      saving = saver.due(step, logged=logged) or stopping or step == stop
      if logged:
        log.add(step, metrics, steps.cost)
      keeping = saver.snapshot_due(step)
      if due or saving or keeping:
        log.flush()
        run.counters.fetch(step)
        rates.settle()
        state = steps.unpack(packed)

      # 4. Evaluate. What a signal interrupts is made again after resuming.
      scores, pending = {}, bool(due) and stopping
      if due and not stopping:
        try:
          scores = evaluate(step, state)
        except preemption.Stopped:
          stopping = saving = pending = True

      # 5. Save.
      saver.check()
      if keeping:
        saver.snapshot(run.workdir, step, state)
      saver.save_best(step, state, scores)
      if saving:
        saver.save(step, state, pending)
      if due or saving or keeping:
        rates.restart()

      # 6. Stop.
      if stopping:
        break
  return step, state


def ensure_autoencoder(
  run: Run, span: stages.Span
) -> tuple[dict[str, Any], str]:
  """Returns the autoencoder that a stage works in, and its fingerprint."""
  if span.stage.objective == 'autoencoder':
    return {}, ''
  return autoencoder_stage.ensure(
    run.config.autoencoder,
    run.workdir / 'autoencoder',
    train_state.stream(run.config.seed, 'init', 'autoencoder'),
    lambda: statistics_clips(run, span)['video'],
    run.mesh,
  )


def freeze_autoencoder(
  run: Run, span: stages.Span, state: train_state.TrainState, *, trained: bool
) -> None:
  """Writes and measures the autoencoder that a stage has trained, once.

  Args:
    run: what the stages share.
    span: the stage.
    state: at its end.
    trained: whether it was trained just now. Then an autoencoder that is there
      already must be the same; a run that resumes after the stage keeps it.
  """
  config, directory = run.config, run.workdir / 'autoencoder'
  run.store.wait()  # It belongs to the checkpoint of the stage's end.
  if trained or not autoencoder_stage.exists(directory):
    average = train_state.averaged(state, config.optim.ema[-1])
    autoencoder_stage.write(
      config.autoencoder,
      directory,
      arrays.to_host(average),
      statistics_clips(run, span)['video'],
    )
  reported = (directory / 'report.json').exists()
  if not coordination.first_says('the report', reported):
    content = reconstruction.report(
      run.workdir,
      judged_source(run),
      directory,
      num=config.data.fixed_clips or config.train.eval_clips,
      size=sizes.of(span.stage),
      stride=config.data.stride,
      mesh=run.mesh,
    )
    logging.info('\n%s', reconstruction.table(content))


def finish(run: Run, span: stages.Span, state: train_state.TrainState) -> None:
  """Makes the run's last videos and their numbers, once.

  Raises:
    Stopped: a signal interrupted it.
  """
  if span.stage.objective == 'autoencoder':
    logging.info('Finished: the autoencoder is in %s.', run.workdir)
    return
  config = sampling.of_stage(run.config, span.stage)
  against = earlier.reader(run.config, span, run.mesh, run.workdir, span.stop)
  final_score.write(
    config,
    span.stage,
    train_state.averaged(state, config.sample.ema),
    ensure_autoencoder(run, span)[0],
    judged_source(run),
    lambda frames: inputs.held_out_clips(
      config, run.sources, span, config.sample.final, run.texts, frames
    ),
    run.mesh,
    run.workdir / 'final',
    span.stop,
    run.signal.check,
    run.texts,
    against(span.stop, state.params),
  )
  run.log.write_final(span.stop, run.workdir / 'final')


def statistics_clips(run: Run, span: stages.Span) -> dict[str, Any]:
  """Returns the training clips that parameters and statistics are fitted to."""
  num = run.config.autoencoder.statistics_clips
  return inputs.load_eval_clips(run.config, run.sources['train'], span, num)


def judged_source(run: Run) -> Any:
  """Returns the data set of the clips that results are compared with."""
  return run.sources['train' if run.config.data.fixed_clips else 'validation']
