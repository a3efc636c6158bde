"""TensorBoard's event files, written through clu.

clu needs some 15 s to import TensorFlow: a background thread imports it and
writes, so the training loop never waits for it; `flush` and `close` do.

TensorFlow would write to gs:// with logins and retries of its own, and upload a
growing file again and again. So events of a run in a bucket go to a temporary
folder first; every flush uploads what there is and begins another file.
TensorBoard reads the files of a folder one after the other.
"""

from collections.abc import Callable, Mapping
from concurrent import futures
import os
import pathlib
import tempfile
from typing import Any

from absl import logging
from etils import epath
import numpy as np

from vdm.common import buckets


class EventFiles:
  """Writes the events of one run; after an error it drops them."""

  def __init__(self, workdir: epath.Path):
    """Writes nothing yet; `workdir` is the run's."""
    self._workdir, self._writer, self._failed = workdir, None, False
    self._staging = None
    if buckets.is_remote(workdir):
      self._staging = tempfile.TemporaryDirectory(prefix='vdm_events_')
    self._thread = futures.ThreadPoolExecutor(1)
    self._last = self._thread.submit(lambda: None)

  def write_scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Adds numbers, {tag: number}."""
    self._put(self._write, _write_scalars, step, values)

  def write_gifs(self, step: int, gifs: Mapping[str, bytes]) -> None:
    """Adds animations, {tag: contents of a GIF file}."""
    self._put(self._write, _write_gifs, step, gifs)

  def flush(self) -> None:
    """Returns when everything written is in the run's folder."""
    if self._staging is not None:
      self._put(self._upload)
    self._last.result()

  def close(self) -> None:
    """Flushes and closes the files."""
    self.flush()
    self._thread.shutdown()
    self._close_writer()
    if self._staging is not None:
      self._staging.cleanup()

  def _put(self, call: Callable[..., None], *args: Any) -> None:
    """Calls call(*args) on the thread, after the calls before."""
    self._last = self._thread.submit(self._guarded, call, *args)

  def _guarded(self, call, *args):
    # metrics.jsonl has the numbers.
    if self._failed:
      return
    try:
      call(*args)
    except Exception as error:
      self._failed = True
      logging.warning(
        'TensorBoard stays empty from here on: %s: %s',
        type(error).__name__,
        error,
      )

  def _write(self, write, step, values):
    if self._writer is None:
      folder = self._staging.name if self._staging else self._workdir
      self._writer = _make_clu_writer(os.fspath(folder))
    write(self._writer, step, values)
    self._writer.flush()

  def _upload(self):
    self._close_writer()
    for path in sorted(pathlib.Path(self._staging.name).iterdir()):
      (self._workdir / path.name).write_bytes(path.read_bytes())
      path.unlink()

  def _close_writer(self):
    if self._writer is not None:
      self._writer.close()
      self._writer = None


def _make_clu_writer(workdir: str) -> Any:
  """Imports TensorFlow, without a GPU, and returns clu's writer."""
  import tensorflow as tf

  # It would take the memory that training needs.
  tf.config.set_visible_devices([], 'GPU')
  from clu.metric_writers import summary_writer

  return summary_writer.SummaryWriter(workdir)


def _write_scalars(writer: Any, step: int, values: dict[str, float]) -> None:
  writer.write_scalars(step, values)


def _write_gifs(writer: Any, step: int, gifs: Mapping[str, bytes]) -> None:
  """Writes image summaries that TensorBoard plays.

  clu's `write_videos` does nothing; an image summary holds encoded images
  after their width and height, which nothing reads.
  """
  from tensorboard.plugins.image import metadata

  writer.write_summaries(
    step,
    {
      tag: np.array([b'0', b'0', content], object)
      for tag, content in gifs.items()
    },
    {
      tag: metadata.create_summary_metadata(
        display_name=tag, description='', converted_to_tensor=None
      )
      for tag in gifs
    },
  )
