"""What a stage and a run leave behind: the autoencoder, the last videos."""

from absl import logging

from vdm.common import sizes
from vdm.config import sampling
from vdm.evaluation import final_score
from vdm.evaluation import reconstruction
from vdm.multihost import arrays
from vdm.multihost import coordination
from vdm.training import autoencoder_stage
from vdm.training import earlier
from vdm.training import inputs
from vdm.training import running
from vdm.training import stage_start
from vdm.training import stages
from vdm.training import train_state


def freeze_autoencoder(
  run: running.Run,
  span: stages.Span,
  state: train_state.TrainState,
  *,
  trained: bool,
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
      run.statistics_clips(span)['video'],
    )
  reported = (directory / 'report.json').exists()
  if not coordination.first_says('the report', reported):
    content = reconstruction.report(
      run.workdir,
      run.judged_source(),
      directory,
      num=config.data.fixed_clips or config.train.eval_clips,
      size=sizes.of(span.stage),
      stride=config.data.stride,
      mesh=run.mesh,
    )
    logging.info('\n%s', reconstruction.table(content))


def finish(
  run: running.Run, span: stages.Span, state: train_state.TrainState
) -> None:
  """Makes the run's last videos and their numbers, once.

  Args:
    run: what the stages share.
    span: the last stage.
    state: at its end.

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
    stage_start.autoencoder(run, span)[0],
    run.judged_source(),
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
