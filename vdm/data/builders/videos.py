"""What the datasets made from video files share: names, checks, frames."""

from collections.abc import Callable, Iterator, Sequence
import itertools
import os
from typing import Any

import numpy as np

from vdm.data import video
from vdm.data.builders import parallel
from vdm.data.builders import reader
from vdm.data.builders import records
from vdm.data.builders import sources


def config_name(
  data, folder: str, settings: Callable[[Any], dict[str, Any]]
) -> str:
  """Returns the part of the directory that names settings and source.

  Where the videos are not at hand, as on a machine that only trains, the one
  dataset in `folder` with these settings is meant.

  Args:
    data: `config.data`.
    folder: where datasets of this name live.
    settings: gives all that the content depends on, from `data`.

  Raises:
    MissingDataset: without the videos, if there is no such dataset.
    ValueError: without the videos, if there are several.
  """
  prefix = f'{data.resolution}px_{data.frame_rate:g}fps_{data.encoding}_'
  if data.source and os.path.exists(data.source):
    return prefix + records.settings_hash(settings(data))
  names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
  built = [
    name
    for name in names
    if name.startswith(prefix)
    and any(
      reader.is_complete(os.path.join(folder, name, version))
      for version in os.listdir(os.path.join(folder, name))
    )
  ]
  if len(built) == 1:
    return built[0]
  if built:
    raise ValueError(
      f'data.source {data.source!r} does not exist, and {folder} has several'
      f' datasets that fit ({", ".join(built)}); set data.source to the'
      ' videos of one.'
    )
  raise reader.MissingDataset(
    f'data.source {data.source!r} does not exist and {folder} has no dataset'
    f' {prefix}*; set data.source to the videos and run `python -m'
    ' vdm.prepare clips --config <this config>`.'
  )


def settings(data) -> dict[str, Any]:
  """Returns the settings that every dataset of videos depends on."""
  return dict(
    resolution=data.resolution,
    frame_rate=data.frame_rate,
    encoding=data.encoding,
  )


def check(
  files: Sequence[sources.File], resolution: int
) -> list[video.Source | video.VideoError]:
  """Decodes all files, in threads, and returns what came of each."""

  def inspect(file):
    try:
      with file.open() as path:
        source = video.inspect(path)
      video.check_size(source, resolution)
      return source
    except video.VideoError as error:
      return error

  checked = parallel.ordered_map(inspect, files)
  return list(parallel.track(checked, len(files), 'checking videos', 'file'))


def frames(
  file: sources.File, source: video.Source, data
) -> tuple[int, Iterator[bytes]]:
  """Returns how many frames a file gives at one rate, and them, encoded."""
  indices, repeats = np.unique(
    video.select(source.times, data.frame_rate), return_counts=True
  )

  def encode(frame):
    image = video.fit(frame, data.resolution, source.pixel_aspect)
    return video.encode_frame(image, data.encoding)

  def encoded():
    with file.open() as path:
      images = parallel.ordered_map(encode, video.read(path, indices))
      for image, times in zip(images, repeats):
        yield from itertools.repeat(image, times)

  return int(repeats.sum()), encoded()
