"""Trackio: the rows, videos and configuration of a run.

It keeps them in a folder of its own (TRACKIO_DIR) and needs no account;
`trackio show` opens the charts. TRACKIO_SPACE_ID sends them to a Space of
Hugging Face instead, with HF_TOKEN. A run that resumes after a crash writes the
steps since its checkpoint again, with the same values.
"""

from collections.abc import Mapping
from typing import Any

from etils import epath

from vdm.training.destinations import background

TITLE = 'Trackio'


def problem() -> str:
  """Returns why a run could not be logged, or ''."""
  try:
    import trackio  # noqa: F401
  except ImportError:
    return (
      "log.trackio needs the package trackio: pip install 'trackio>=0.43,<1'."
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
      workdir: the run's folder.
      config: nested dict of plain values.
    """
    import trackio

    self._trackio = trackio
    # A run is known by its name.
    self._run = trackio.init(
      project=project,
      name=f'{workdir.name}-{run_id}',
      config=config,
      resume='allow',
      embed=False,
    )

  def write(self, step: int, stage: str, values: Mapping[str, float]) -> None:
    """Adds a row."""
    self._run.log({'stage': stage, **values}, step=step)

  def write_preview(self, step: int, preview: background.Preview) -> None:
    """Adds a video, or a picture of single frames."""
    with background.local_file(preview.path) as path:
      if path.endswith('.mp4'):
        media = {'samples': self._trackio.Video(path)}
      else:
        media = {'frames': self._trackio.Image(path)}
      self._run.log(media, step=step)

  def write_final(
    self, step: int, scores: Mapping[str, float], video: epath.Path
  ) -> None:
    """Adds the scores and the video as one row; there is no summary."""
    with background.local_file(video) as path:
      media = self._trackio.Video(path)
      self._run.log({**scores, 'final/videos': media}, step=step)

  def close(self, code: int) -> None:
    """Waits until everything is written."""
    del code
    self._run.finish()
