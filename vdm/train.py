"""Trains the stages of a run, from its newest checkpoint on.

The loop knows stages and objectives, no network. Everything it does is a
function of the step: a run that was stopped, for whatever reason, resumes with
the same numbers when the same command is run again.
"""

from collections.abc import Sequence
import math

from absl import logging
from etils import epath
import jax
from ml_collections import ConfigDict

from vdm.checkpoints import manager
from vdm.config import check
from vdm.data import pipeline
from vdm.evaluation import evaluator
from vdm.evaluation import stage_end
from vdm.multihost import coordination
from vdm.multihost import heartbeat
from vdm.multihost import preemption
from vdm.multihost import workdir_lock
from vdm.trained import run_folder
from vdm.trained import snapshots
from vdm.training import agreement
from vdm.training import autoencoder_stage
from vdm.training import counters
from vdm.training import inputs
from vdm.training import motion_range
from vdm.training import nonfinite
from vdm.training import preflight
from vdm.training import resume
from vdm.training import running
from vdm.training import sharding
from vdm.training import stage_saver
from vdm.training import stage_start
from vdm.training import stage_steps
from vdm.training import stages
from vdm.training import starts
from vdm.training import step_log
from vdm.training import texts
from vdm.training import throughput
from vdm.training import train_state
from vdm.training import writer
from vdm.training.destinations import chosen

STOPPED = coordination.STOPPED  # Exit code: run the same command again.


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
    health.reporting(),
  ):
    agreement.check_config(config)
    chosen.check(config.log)
    # What the run's config.json says is what was used.
    config = config.copy_and_resolve_references()
    config.autoencoder = autoencoder_stage.resolve(
      config.autoencoder, workdir / 'autoencoder'
    )
    begun = run_folder.begun(workdir)
    config.model = preflight.resolve_model(config, begun)
    sources = agreement.open_sources(config.data)
    mesh = sharding.make_mesh(options.fsdp)
    made = preflight.check(config, sources, mesh, signal.check)
    config.model.motion_range = motion_range.resolve(
      config, begun, sources['train']
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
      # Others are told of a failure before these are closed, which may wait.
      health.reporting(),
    ):
      run = running.Run(
        config=config,
        workdir=workdir,
        sources=sources,
        mesh=mesh,
        objectives=made,
        store=store,
        best=best,
        log=log,
        signal=signal,
        texts=texts.make_reader(config, workdir, sources, begun),
        counters=counters.Counters(options.max_skipped),
        command=command,
        stop_at=stop_at,
      )
      code = train_stages(run, accept_changes)
      for saving in (store, best):
        if saving is not None:
          saving.wait()  # Before a tracker's server is waited for.
      log.close(code)
      coordination.gather('the end of the run')
      return code


def train_stages(run: running.Run, accept_changes: bool) -> int:
  """Trains from the newest valid checkpoint on; see `train`."""
  config, info = run.config, run.sources['train'].info
  if (meta := run.store.read_meta()) is None:
    autoencoder_stage.check(config.autoencoder, run.workdir / 'autoencoder')
  else:
    resume.check(config, run.workdir, meta['stage'], accept_changes)
  step, previous, state, meta = resume.restore(
    config,
    run.objectives,
    run.store,
    run.mesh,
    info['fingerprint'],
    accept_changes,
  )
  resume.claim(config, run.workdir, info['label_names'])
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
    # A step whose score is made again is no best one yet.
    run.best.forget_after(step - 1 if pending else step)
  run.counters.spent.resume(meta, lambda: writer.read_rows(run.workdir))
  starts.record(run.workdir, step, info['fingerprint'], run.command)
  spans = stages.spans(config)
  if previous is not None:
    run.log.write(step, previous.name, {'resumed_from': step})
    logging.info('resumed_from %d, in stage %s', step, previous.name)
    spans = spans[spans.index(previous) :]

  for span in spans:
    if previous is None or previous.stage.objective != span.stage.objective:
      state = stage_start.state(run, span, previous, state)
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
      stage_end.freeze_autoencoder(run, span, state, trained=step > started)
    previous = span
  run.store.wait()
  try:
    stage_end.finish(run, previous, state)
  except preemption.Stopped:
    logging.info('Stopped early: run the same command again for the videos.')
    return STOPPED
  return 0


def train_stage(
  run: running.Run,
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
  frozen, fingerprint = stage_start.frozen(run, span)
  steps = stage_steps.StageSteps(
    run.config.optim,
    run.config.seed,
    run.mesh,
    span,
    run.objectives[span.name],
    frozen,
    state,
  )
  for line in stages.describe(span, previous, state.params, steps.trained[0]):
    logging.info('%s', line)
  stop = span.stop if run.stop_at is None else min(span.stop, run.stop_at)
  if step >= stop and not pending_evaluation:
    return step, state
  evaluate = evaluator.make(run, span, frozen, step)
  saver = stage_saver.StageSaver(
    run.config,
    span,
    run.sources['train'].info['fingerprint'],
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
  with inputs.make_batches(
    run.config,
    run.sources['train'],
    span,
    step - span.start,
    fingerprint,
    run.texts,
  ) as batches:
    return run_steps(run, steps, batches, evaluate, saver, step, stop, state)


def run_steps(
  run: running.Run,
  steps: stage_steps.StageSteps,
  batches: pipeline.Batches | pipeline.RepeatedBatches,
  evaluate: evaluator.Evaluator,
  saver: stage_saver.StageSaver,
  step: int,
  stop: int,
  state: train_state.TrainState,
) -> tuple[int, train_state.TrainState]:
  """Makes the steps of a stage: the loop of the training.

  Args:
    run: what the stages share.
    steps: of the stage, compiled when they are first made.
    batches: its data, from `step` on.
    evaluate: validation, previews and the small score.
    saver: of its states.
    step: global step of `state`.
    stop: global step to stop at.
    state: donated.

  Returns:
    (step, state); before `stop` if a signal came.

  Raises:
    NonFiniteError: too many steps had gradients that are not finite.
  """
  span, bad_before, cost = steps.span, run.counters.bad_records, {}
  rates = throughput.Throughput(
    span.stage.batch, run.config.train.compute_dtype, run.counters.spent
  )
  spans = stages.spans(run.config)
  log = step_log.StepLog(
    spans[spans.index(span) :], run.config, rates, run.counters, run.log
  )
  packed = steps.pack(state)
  while step < stop:
    # 1. Wait for the data.
    batch = rates.wait(lambda: next(batches))
    run.counters.bad_records = bad_before + batches.bad_records

    # 2. Step.
    packed, metrics = steps(packed, batch, step - span.start)
    rates.count(
      steps.tflops, compile_seconds=steps.cost.get('compile_seconds', 0.0)
    )
    cost |= steps.cost
    step += 1

    # 3. Log. A row is fetched while the next step runs.
    log.flush()
    if run.counters.too_many_skipped(step, metrics.pop('skipped')):
      state = steps.unpack(packed)
      raise nonfinite.dump(
        run.config,
        run.sources['train'],
        steps,
        state,
        batch,
        step,
        run.workdir,
      )
    stopping, due = run.signal.received(), evaluate.due(step)
    logged = log.due(step)
    saving = saver.due(step, logged=logged) or stopping or step == stop
    keeping = saver.snapshot_due(step)
    if logged:
      log.add(step, metrics, cost)
      cost = {}
    paused = due or saving or keeping
    if paused:
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
    if paused:
      rates.restart()

    # 6. Stop.
    if stopping:
      break
  return step, state
