"""Reads frames that videos are to continue or complete, for sampling.

Pictures, videos and arrays become what the data set of the run would hold of
them: frames on display at its rate, upright, the centred part of its aspect,
averaged down.
Sampling imports this, also in Colab: nothing here uses jax, TensorFlow, TFDS or
Grain, or reads a data set.
"""

from collections.abc import Sequence
import pathlib
import re
from typing import Any, NamedTuple
import zipfile
import zlib

import av
from etils.array_types import IntArray, ui8
from ml_collections import ConfigDict
import numpy as np
from PIL import Image
from PIL import ImageOps

from vdm.common import errors
from vdm.common import sizes
from vdm.data import coding
from vdm.preparation import array_files
from vdm.preparation import decoding
from vdm.preparation import geometry
from vdm.preparation import inspection

PICTURES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
_ARRAYS = '.npz'
# What a file that is not what it seems may lead to.
_READ_ERRORS = (
  ValueError,
  OSError,
  EOFError,
  SyntaxError,
  zipfile.BadZipFile,
  zlib.error,
  Image.DecompressionBombError,
)


class Given(NamedTuple):
  """Frames that are given, of m videos.

  Attributes:
    frames: k of each, in the order of their indices.
    names: of the file that each video is from; in an array file, with its
      number.
    labels: the videos' classes; -1: unknown.
    label_names: of the classes, [] where none is known.
  """

  frames: ui8['m k h w 3']
  names: list[str]
  labels: IntArray[' m']
  label_names: list[str]


def parse_indices(text: str, frames: int) -> tuple[int, ...]:
  """Returns the indices that '0', '0:4', '0,-1' or '-4:' names, ascending.

  Args:
    text: indices and ranges as in Python, with commas.
    frames: of the video.

  Raises:
    UsageError: it names none, or one outside of the video.
  """
  found = set()
  for part in text.split(','):
    if not re.fullmatch(r'\s*-?\d+\s*|\s*(-?\d+)?\s*:\s*(-?\d+)?\s*', part):
      raise errors.UsageError(
        f'--given_frames={text} is wrong: it takes indices and ranges as in '
        "Python, such as 0, 0:4 or '0,-1'."
      )
    if ':' in part:
      ends = [int(x) if x.strip() else None for x in part.split(':')]
      for end in filter(None, ends):
        _check_index(end, frames + (end > 0), text, frames)
      found.update(range(frames)[slice(*ends)])
    else:
      _check_index(int(part), frames, text, frames)
      found.add(range(frames)[int(part)])
  if not found:
    raise errors.UsageError(f'--given_frames={text} names no frame.')
  return tuple(sorted(found))


def _check_index(index: int, limit: int, text: str, frames: int) -> None:
  if not -frames <= index < limit:
    raise errors.UsageError(
      f'--given_frames={text}: the video has the frames 0 to {frames - 1}, '
      f'and {index} is none of them.'
    )


def read(
  source: str,
  indices: Sequence[int],
  data: ConfigDict,
  size: sizes.Size,
  name: str = '--given',
) -> Given:
  """Reads the frames at `indices`; frame i of a file is frame i of a video.

  Args:
    source: a picture, video or array file (`videos` uint8 [n t h w 3], taken to
      have the run's frame rate), a folder of them, or pictures with commas,
      one for each index. A picture alone takes one index, whichever it is.
    indices: of the frames in the video that is made, ascending, not negative.
    data: `config.data`.
    size: height and width of the result, px.
    name: of the flag that gives them.

  Raises:
    UsageError: it cannot be read, or has no such frames.
  """
  groups = _files(source, name)
  parts = [_read(files, indices, data, size, name) for files in groups]
  known = [part.label_names for part in parts if part.label_names]
  label_names = known[0] if known else []
  return Given(
    np.concatenate([part.frames for part in parts]),
    [name for part in parts for name in part.names],
    np.concatenate(
      [
        # Of files that do not agree on what a number means, none is known.
        part.labels if part.label_names == label_names else 0 * part.labels - 1
        for part in parts
      ]
    ),
    label_names,
  )


def labels(
  given: Given, model: ConfigDict, label_names: Sequence[str], num: int
) -> IntArray[' n']:
  """Returns the classes of `num` videos that go on from given frames in turn.

  They are those of the given videos if these have the run's classes (as its
  samples.npz), else the null label.

  Args:
    given: the frames.
    model: `config.model` of the run.
    label_names: of its classes.
    num: number of videos.

  Raises:
    UsageError: the run has learnt no null label.
  """
  names = list(label_names[: model.num_classes])
  if names and given.label_names[: model.num_classes] == names:
    return np.resize(given.labels, num)
  if model.num_classes and not model.label_dropout:
    raise errors.UsageError(
      'The class of what is given is unknown, and the run was trained without '
      'a null label: give --label.'
    )
  return np.full(num, -1)


def small_videos(
  source: str,
  config: ConfigDict,
  stage: ConfigDict,
  frames: int,
  frame_rate: float,
) -> Given:
  """Reads videos that a network is to enlarge, as its training shrinks clips.

  Args:
    source: see `read`.
    config: the run's, of a network that is told smaller videos.
    stage: the stage's.
    frames: of the videos that are made.
    frame_rate: of these, frames a second.

  Raises:
    UsageError: it cannot be read, or is too short or too small.
  """
  low = config.model.low
  height, width = (x // low.space_factor for x in sizes.of(stage))
  data = config.data.copy_and_resolve_references()
  rate = frame_rate / low.time_factor
  data.update(resolution=height, width=width, frame_rate=rate, stride=1)
  indices = range(frames // low.time_factor)
  return read(source, indices, data, (height, width), '--low')


def describe(
  given: Given, source: str, indices: Sequence[int], num: int
) -> dict[str, Any]:
  """Returns what samples.json says of given frames.

  Args:
    given: the frames.
    source: what was asked for.
    indices: of the frames in the videos.
    num: number of videos.
  """
  return {
    'source': source,
    'frames': list(indices),
    'files': [given.names[i % len(given.names)] for i in range(num)],
    # Not the original pixels: a video has one look throughout.
    'shown_as': 'decoded latents',
  }


def describe_small(given: Given, source: str, num: int) -> dict[str, Any]:
  """Returns what samples.json says of videos that are enlarged.

  Args:
    given: the videos.
    source: what was asked for.
    num: number of videos.
  """
  files = [given.names[i % len(given.names)] for i in range(num)]
  return {'source': source, 'frames': given.frames.shape[1], 'files': files}


def _files(source: str, name: str) -> list[list[pathlib.Path]]:
  """Returns the files of each video, or of each array file."""
  path = pathlib.Path(source)
  if path.is_dir():
    if (path / 'samples.npz').is_file():
      return [[path / 'samples.npz']]  # Beside it are the same, to watch.
    suffixes = (*PICTURES, _ARRAYS, *decoding.VIDEO_SUFFIXES)
    found = sorted(
      x
      for x in path.iterdir()
      if x.suffix.lower() in suffixes and not x.name.startswith('.')
    )
    if not found:
      raise errors.UsageError(
        f'{name}={source} holds no picture, video or .npz file.'
      )
    return [[x] for x in found]
  files = [path]
  if not path.exists() and ',' in source:
    files = [pathlib.Path(part.strip()) for part in source.split(',')]
  for file in files:
    if not file.is_file():
      raise errors.UsageError(f'{name}: there is no file or folder {file}.')
    if len(files) > 1 and file.suffix.lower() not in PICTURES:
      raise errors.UsageError(
        f'{name}={source}: only pictures are given with commas, and '
        f'{file.name} is none.'
      )
  return [files]


def _read(files, indices, data, size, flag) -> Given:
  """Reads one video, or the videos of an array file."""
  suffix, label_names = files[0].suffix.lower(), []
  names = [','.join(file.name for file in files)]
  try:
    if suffix == _ARRAYS:
      videos, labels, label_names = _from_arrays(files[0], indices, size)
      names = [f'{names[0]}/{i}' for i in range(len(videos))]
      videos = [_reduced(video, size) for video in videos]
    else:
      labels = np.full(1, -1)
      if suffix in PICTURES:
        images = _from_pictures(files, len(indices), data)
      else:
        images = _from_video(files[0], indices, data)
      videos = [_reduced(images, size)]
  except _READ_ERRORS as error:
    reason = str(error).strip().rstrip('.') or type(error).__name__
    raise errors.UsageError(
      f'{flag}: {files[0]} cannot be used: {reason}.'
    ) from error
  return Given(np.stack(videos), names, labels, label_names)


def _reduced(images, size):
  """Returns frames of one size, area-averaged."""
  return np.stack([coding.shrink(image, size) for image in images])


def _from_arrays(file, indices, size):
  arrays = array_files.load(file)
  videos = arrays['videos']
  n, t, h, w = videos.shape[:4]
  if h * size[1] != w * size[0] or h < size[0]:
    raise ValueError(
      f'its videos are {w}x{h} px, and neither {sizes.text(size)} px nor '
      'larger in that shape'
    )
  _check_length(t, indices)
  names = [str(name) for name in arrays.get('label_names', ())]
  labels = np.asarray(arrays.get('labels', np.full(n, -1)))
  if labels.shape != (n,) or not names:
    labels, names = np.full(n, -1), []
  return videos[:, list(indices)], labels.astype(np.int64), names


def _from_pictures(files, num, data):
  if len(files) != num:
    pictures = '1 picture' if len(files) == 1 else f'{len(files)} pictures'
    raise ValueError(
      f'{pictures} for {num} given frames; give as many, with commas, or a '
      'video'
    )
  return [_picture(file, data) for file in files]


def _picture(file, data):
  with Image.open(file) as image:
    width, height = image.size
    if width * height > data.limits.pixels:
      raise ValueError(f'{width}x{height} px are too many')
    rgb = np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
  size, (height, width) = sizes.of(data), rgb.shape[:2]
  if sizes.magnification((height, width), size) < 1 and not data.upscale:
    raise ValueError(
      f'{width}x{height} px is smaller than {sizes.text(size)} px'
    )
  frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format='rgb24')
  return geometry.fit(frame, size)


def _from_video(file, indices, data):
  info = inspection.inspect(
    str(file),
    assumed_rate=data.assumed_rate,
    max_pixels=data.limits.pixels,
  )
  if not data.upscale:
    inspection.check_size(info, sizes.of(data))
  runs = [
    info.resample(data.frame_rate, *run)[:: data.stride]
    for run in info.unbroken()
  ]
  # The first without a pause that is long enough.
  enough = [run for run in runs if len(run) > max(indices)]
  shown = enough[0] if enough else max(runs, key=len)
  _check_length(len(shown), indices, data.frame_rate / data.stride)
  wanted = shown[list(indices)]
  unique = np.unique(wanted)
  images = {
    index: geometry.fit(frame, sizes.of(data), info.pixel_aspect)
    for index, frame in zip(
      unique, decoding.read(str(file), unique, field_order=info.field_order)
    )
  }
  return [images[index] for index in wanted]


def _check_length(length, indices, frame_rate=None):
  if length <= max(indices):
    rate = f' at {frame_rate:g} a second' if frame_rate else ''
    raise ValueError(
      f'it has {length} frames{rate}, and frame {max(indices)} is to be given'
    )
