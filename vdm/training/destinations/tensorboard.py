"""TensorBoard's event files in the workdir, through clu.

Importing TensorFlow takes some 15 s.

TensorFlow would write to gs:// with logins and retries of its own, and upload a
growing file again and again. So events of a run in a bucket go to a temporary
folder; a flush uploads what there is, and another file begins. TensorBoard
reads the files of a folder one after the other.
"""

from collections.abc import Mapping
import os
import pathlib
import tempfile

from etils import epath
import numpy as np

from vdm.common import buckets
from vdm.training.destinations import background


class TensorBoard:
  """See `background.Destination`."""

  def __init__(self, workdir: epath.Path):
    """Imports TensorFlow, without a GPU, and clu."""
    import tensorflow as tf

    # It would take the memory that training needs.
    tf.config.set_visible_devices([], 'GPU')
    from clu.metric_writers import summary_writer

    self._workdir, self._folder, self._staging = workdir, workdir, None
    if buckets.is_remote(workdir):
      self._staging = tempfile.TemporaryDirectory(prefix='vdm_events_')
      self._folder = pathlib.Path(self._staging.name)
    self._make = lambda: summary_writer.SummaryWriter(os.fspath(self._folder))
    self._writer = None

  def write(self, step: int, stage: str, values: Mapping[str, float]) -> None:
    """Adds scalars."""
    del stage
    self._open().write_scalars(step, values)
    self._writer.flush()

  def write_preview(self, step: int, preview: background.Preview) -> None:
    """Adds an image summary that TensorBoard plays.

    clu's `write_videos` does nothing; an image summary holds encoded images
    after their width and height, which nothing reads.
    """
    from tensorboard.plugins.image import metadata

    self._open().write_summaries(
      step,
      {'samples': np.array([b'0', b'0', preview.gif], object)},
      {
        'samples': metadata.create_summary_metadata(
          display_name='samples', description='', converted_to_tensor=None
        )
      },
    )
    self._writer.flush()

  def write_final(
    self, step: int, scores: Mapping[str, float], video: epath.Path
  ) -> None:
    """Adds the scores."""
    del video
    self.write(step, '', scores)

  def flush(self) -> None:
    """Uploads events of a run in a bucket; others are written already."""
    if self._staging is not None:
      self._upload()

  def close(self, code: int) -> None:
    """Closes the file."""
    del code
    if self._staging is not None:
      self._upload()
      self._staging.cleanup()
    elif self._writer is not None:
      self._writer.close()

  def _open(self):
    """Returns clu's writer, whose file is made for the first event."""
    if self._writer is None:
      self._writer = self._make()
    return self._writer

  def _upload(self) -> None:
    if self._writer is not None:
      self._writer.close()
      self._writer = None
    for path in sorted(self._folder.iterdir()):
      (self._workdir / path.name).write_bytes(path.read_bytes())
      path.unlink()
