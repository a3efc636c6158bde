"""Reads clips from any folder or archive of videos or of arrays.

A folder, walked to its leaves and through links, may hold video files, one clip
or more taken from each, and .npz files with a uint8 array `videos` [n t h w 3],
which is taken as it is. What cannot be used is named in the log and left out,
with the reason; files that are no videos by their names are counted there.
"""

import collections
from collections.abc import Callable, Iterator, Sequence
import contextlib
import functools
import itertools
import os
import pathlib
import zipfile
import zlib

from absl import logging
from etils.array_types import IntArray, StrArray, ui8
import numpy as np

from vdm.common import sizes
from vdm.data import coding
from vdm.data.builders import build_plan
from vdm.preparation import array_files
from vdm.preparation import decoding
from vdm.preparation import geometry
from vdm.preparation import inspection
from vdm.preparation import sources

_SUFFIXES = sources.VIDEO_SUFFIXES | {'.npz'}
# What a file that is not what it seems may lead to.
_READ_ERRORS = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


def read_clips(
  path: str | os.PathLike[str],
  *,
  frames: int,
  resolution: int,
  width: int = 0,
  num: int,
  stride: int = 1,
  frame_rate: float = 0.0,
  per_video: int = 1,
  sampling: str = 'random',
  seed: int = 0,
) -> tuple[ui8['n t h w 3'], StrArray[' n']]:
  """Returns clips and the file that each comes from.

  Args:
    path: folder, archive, or one file.
    frames: frames of a clip; longer ones in .npz files are cut off.
    resolution: height, px. Videos are cropped around their centre and averaged
      down, arrays must have this aspect and not be smaller.
    width: px; 0: as high.
    num: maximal number of clips.
    stride: frames from one of a clip to the next.
    frame_rate: that videos are resampled to first; 0: the rate of each.
    per_video: maximal number of clips of a video file, and no more than it
      takes to have `num`; they do not overlap.
    sampling: 'random': files in a seeded order, clips from seeded places;
      'middle': the same order, from the middle; 'first': files by name, clips
      from their start, as StyleGAN-V takes them.
    seed: of files and places.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: it holds no such clips.
  """
  path, size = pathlib.Path(path), (resolution, width or resolution)
  random = np.random.default_rng(seed)
  span = (frames - 1) * stride + 1
  clips, names = [], []
  with _open(path) as tree:
    files = tree.files
    if sampling != 'first':
      files = [files[i] for i in random.permutation(len(files))]
    choose = functools.partial(
      _starts,
      span=span,
      max_clips=min(per_video, -(-num // max(1, len(files)))),
      sampling=sampling,
      random=random,
    )
    for file in files:
      is_arrays = file.name.lower().endswith('.npz')
      try:
        with file.open() as place:
          if is_arrays:
            found = _from_arrays(place, frames, stride, size)
          else:
            offsets = range(0, span, stride)
            found = _from_video(place, offsets, size, frame_rate, choose)
          for clip in itertools.islice(found, num - len(clips)):
            clips.append(clip)
            names.append(
              f'{file.name}/{len(names)}' if is_arrays else file.name
            )
      except _READ_ERRORS as error:
        logging.warning('%s is left out: %s.', file.name, error)
      if len(clips) >= num:
        break
  if not clips:
    raise ValueError(
      f'{path} holds no clip of {span} frames and {sizes.text(size)} px that '
      'can be read: give another folder, fewer frames or a lower resolution.'
    )
  return np.stack(clips), np.array(names)


@contextlib.contextmanager
def _open(path: pathlib.Path) -> Iterator[sources.Tree]:
  """Yields the files to read, by name, and logs what is left out."""
  if not path.exists():
    raise FileNotFoundError(f'There is no folder {path}.')
  if path.is_file() and path.suffix.lower() not in ('.zip', '.rar'):
    opener = functools.partial(contextlib.nullcontext, str(path))
    yield sources.Tree([sources.File(path.name, 0, 0, opener)], [])
    return
  with contextlib.ExitStack() as stack:
    try:
      tree = stack.enter_context(
        sources.open_tree(str(path), follow_links=True)
      )
    except build_plan.BuildError as error:
      raise ValueError(str(error)) from error
    files, skipped = tree.of_suffixes(_SUFFIXES)
    no_videos = collections.Counter()
    for skip in skipped:
      if skip.reason in build_plan.NO_VIDEO:
        no_videos[skip.reason] += 1
      else:
        logging.warning('%s is left out: %s.', skip.source, skip.message)
    if no_videos:
      counts = ', '.join(f'{n} {name}' for name, n in no_videos.most_common())
      logging.warning('%s: left out as no videos: %s.', path, counts)
    # Beside the arrays of samples are the same videos to watch, labelled.
    paths = {file.name: pathlib.PurePosixPath(file.name) for file in files}
    arrays = {p.parent for p in paths.values() if p.name == 'samples.npz'}
    files = [
      file
      for file in files
      if file.name.lower().endswith('.npz')
      or paths[file.name].parent not in arrays
    ]
    # Folder by folder, as paths are sorted.
    files = sorted(files, key=lambda file: file.name.split('/'))
    yield sources.Tree(files, skipped)


def _starts(
  n: int,
  *,
  span: int,
  max_clips: int,
  sampling: str,
  random: np.random.Generator,
) -> IntArray[' m']:
  """Returns the first frames of clips that do not overlap, ascending.

  Args:
    n: frames of the video.
    span: frames from the first of a clip to its last.
    max_clips: of the video.
    sampling: see `read_clips`.
    random: draws the places.

  Raises:
    ValueError: the video is too short.
  """
  if n < span:
    raise ValueError(f'it has {n} frames of the {span} of a clip')
  count = min(max_clips, n // span)
  # The spare frames, divided over the gaps before, between and after clips.
  spare = n - count * span
  if sampling == 'random':
    gaps = np.sort(random.integers(0, spare + 1, count))
  elif sampling == 'middle':
    gaps = np.round((np.arange(count) + 0.5) * spare / count).astype(int)
  else:
    gaps = np.zeros(count, int)
  return gaps + np.arange(count) * span


def _from_arrays(
  file: str, frames: int, stride: int, size: sizes.Size
) -> Iterator[ui8['t h w 3']]:
  """Yields the clips of an .npz file."""
  videos = array_files.load(file)['videos']
  t, h, w = videos.shape[1:4]
  fits = h * size[1] == w * size[0] and h >= size[0]
  if t < (frames - 1) * stride + 1 or not fits:
    raise ValueError(
      f'its clips are {t} frames of {w}x{h} px, not {frames} at stride {stride}'
      f' of {sizes.text(size)} px or larger in that shape'
    )
  for video in videos[:, : (frames - 1) * stride + 1 : stride]:
    yield np.stack([coding.shrink(frame, size) for frame in video])


def _from_video(
  file: str,
  offsets: Sequence[int],
  size: sizes.Size,
  frame_rate: float,
  choose: Callable[[int], IntArray[' m']],
) -> Iterator[ui8['t h w 3']]:
  """Yields the clips of a video file.

  Args:
    file: to read.
    offsets: of a clip's frames from its first.
    size: height and width, px.
    frame_rate: that it is resampled to; 0: its own.
    choose: returns the first frames of clips, from the number of frames.
  """
  # Where every frame is used, the rate of a raw stream does not matter.
  info = inspection.inspect(file, assumed_rate=frame_rate or 1.0)
  inspection.check_size(info, size)
  runs = [
    info.resample(frame_rate or info.frame_rate, start, stop)
    for start, stop in info.unbroken()
  ]
  shown = max(runs, key=len)  # No clip goes over a pause.
  wanted = shown[choose(len(shown))[:, None] + np.array(offsets)]
  indices = np.unique(wanted)
  images = {
    index: geometry.fit(frame, size, info.pixel_aspect)
    for index, frame in zip(
      indices,
      decoding.read(file, indices, field_order=info.field_order),
    )
  }
  for clip in wanted:
    yield np.stack([images[index] for index in clip])
