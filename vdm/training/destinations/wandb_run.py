"""Weights & Biases: the rows, videos and configuration of a run.

W&B drops rows whose step is below the last one's, and a run that resumes after
a crash repeats the steps since its checkpoint. So `step` is a value like any
other, which the charts are drawn over, and W&B's own counter only counts rows:
a repeated step has the same values and falls on the same points.

Credentials come from WANDB_API_KEY or `wandb login`, never from the
configuration. Other variables of W&B, such as WANDB_ENTITY and WANDB_MODE,
apply; after WANDB_MODE=offline, `wandb sync` sends what is in the workdir.
"""

from collections.abc import Mapping
import os
import tempfile
from typing import Any

from absl import logging
from etils import epath

from vdm.common import buckets
from vdm.multihost import coordination
from vdm.training.destinations import background

TITLE = 'Weights & Biases'
OFFLINE = ('offline', 'dryrun', 'disabled')
UPLOAD_SECONDS = 60.0  # For what is left at the end of the command.


def problem() -> str:
  """Returns why a run could not be logged, or ''; asks no server."""
  try:
    import wandb
  except ImportError:
    return "log.wandb needs the package wandb: pip install 'wandb>=0.31,<1'."
  if wandb.setup().settings.mode in OFFLINE:
    return ''
  try:
    known = wandb.login(prompt=False, verify=False)
  except wandb.errors.Error as error:
    return f'log.wandb: {error}'
  if not known:
    return (
      'log.wandb needs the key of an account: run `wandb login` once, or set '
      'WANDB_API_KEY, or WANDB_MODE=offline to send the run later.'
    )
  return ''


class Run:
  """See `background.Destination`."""

  def __init__(
    self,
    project: str,
    run_id: str,
    workdir: epath.Path,
    config: dict[str, Any],
  ):
    """Opens the run, or resumes it.

    Args:
      project: that the run belongs to.
      run_id: the same one whenever the run resumes.
      workdir: the run's folder; W&B's own files are in `wandb/` there, or in
        a temporary folder if it is not local.
      config: nested dict of plain values.
    """
    import wandb

    self._wandb = wandb
    folder = os.fspath(workdir)
    if buckets.is_remote(workdir):
      folder = tempfile.mkdtemp()
    self._run = wandb.init(
      project=project,
      id=run_id,
      name=workdir.name,
      resume='allow',
      config=config,
      allow_val_change=True,  # What a run that resumes may change.
      dir=folder,
      settings=wandb.Settings(
        console='off', quiet=True, finish_timeout=UPLOAD_SECONDS
      ),
    )
    self._run.define_metric('step')
    self._run.define_metric('*', step_metric='step')
    where = f'in {folder}/wandb' if self._run.offline else self._run.url
    logging.info('%s: run %s, %s', TITLE, run_id, where)

  def write(self, step: int, stage: str, values: Mapping[str, float]) -> None:
    """Adds a row."""
    self._run.log({'step': step, 'stage': stage, **values})

  def write_preview(self, step: int, preview: background.Preview) -> None:
    """Adds a video, or a picture of single frames."""
    with background.local_file(preview.path) as path:
      if path.endswith('.mp4'):
        media = {'samples': self._wandb.Video(path, format='mp4')}
      else:  # Under another name: W&B has one kind of media in each panel.
        media = {'frames': self._wandb.Image(path)}
      self._run.log({'step': step, **media})

  def write_final(
    self, step: int, scores: Mapping[str, float], video: epath.Path
  ) -> None:
    """Adds the scores to the summary, and the video."""
    self._run.summary.update(scores)
    with background.local_file(video) as path:
      media = self._wandb.Video(path, format='mp4')
      self._run.log({'step': step, 'final/videos': media})

  def close(self, code: int) -> None:
    """Waits for the upload; W&B keeps on disk what it could not send."""
    if code == coordination.STOPPED:
      self._run.mark_preempting()  # It then counts as preempted, not failed.
    self._run.finish(exit_code=code)
