"""TensorBoard's event files in the workdir, through clu.

Importing TensorFlow takes some 15 s.
"""

from collections.abc import Mapping
import os

from etils import epath
import numpy as np

from vdm.training.destinations import background


class TensorBoard:
  """See `background.Destination`."""

  def __init__(self, workdir: epath.Path):
    """Imports TensorFlow, without a GPU, and clu."""
    import tensorflow as tf

    # It would take the memory that training needs.
    tf.config.set_visible_devices([], 'GPU')
    from clu.metric_writers import summary_writer

    self._writer = summary_writer.SummaryWriter(os.fspath(workdir))

  def write(self, step: int, stage: str, values: Mapping[str, float]) -> None:
    """Adds scalars."""
    del stage
    self._writer.write_scalars(step, values)
    self._writer.flush()

  def write_preview(self, step: int, preview: background.Preview) -> None:
    """Adds an image summary that TensorBoard plays.

    clu's `write_videos` does nothing; an image summary holds encoded images
    after their width and height, which nothing reads.
    """
    from tensorboard.plugins.image import metadata

    self._writer.write_summaries(
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

  def close(self, code: int) -> None:
    """Closes the file."""
    del code
    self._writer.close()
