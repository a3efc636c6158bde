"""What a stage begins with: its state, and the parameters it keeps frozen."""

from typing import Any

from vdm.multihost import arrays
from vdm.training import autoencoder_stage
from vdm.training import running
from vdm.training import stages
from vdm.training import teacher
from vdm.training import train_state


def state(
  run: running.Run,
  span: stages.Span,
  previous: stages.Span | None,
  before: train_state.TrainState | None,
) -> train_state.TrainState:
  """Returns the state that a stage with another objective begins with.

  Args:
    run: what the stages share.
    span: the stage.
    previous: the one before it, if any.
    before: the state at its end.
  """
  config, objective = run.config, run.objectives[span.name]
  if span.stage.objective == 'consistency':
    if previous is not None and previous.stage.objective == 'diffusion':
      width = config.sample.ema
      params = arrays.to_host(train_state.averaged(before, width))
      source = {'step': span.start, 'width': width}
    else:
      _, fingerprint = autoencoder(run, span)
      params, source = teacher.from_source(config, objective, fingerprint)
    teacher.write(run.workdir, params, source)
    return train_state.from_params(config.optim, objective, params, run.mesh)
  return train_state.initialise(
    config.optim,
    objective,
    train_state.stream(config.seed, 'init', span.stage.objective),
    run.statistics_clips(span),
    run.mesh,
    config.train.init_from,
  )


def frozen(run: running.Run, span: stages.Span) -> tuple[dict[str, Any], str]:
  """Returns what a stage uses and does not train.

  Returns:
    ({'params', 'stats'} of the autoencoder and, of a consistency stage, the
    'teacher'; nothing for an autoencoder's stage), the autoencoder's
    fingerprint.
  """
  found, fingerprint = autoencoder(run, span)
  if span.stage.objective == 'consistency':
    objective = run.objectives[span.name]
    found['teacher'] = teacher.load(run.workdir, objective, run.mesh)
  return found, fingerprint


def autoencoder(
  run: running.Run, span: stages.Span
) -> tuple[dict[str, Any], str]:
  """Returns the autoencoder that a stage works in, and its fingerprint."""
  if span.stage.objective == 'autoencoder':
    return {}, ''
  return autoencoder_stage.ensure(
    run.config.autoencoder,
    run.workdir / 'autoencoder',
    train_state.stream(run.config.seed, 'init', 'autoencoder'),
    lambda: run.statistics_clips(span)['video'],
    run.mesh,
  )
