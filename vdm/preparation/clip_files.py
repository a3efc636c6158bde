"""Reads clips from any folder of videos or of arrays.

A folder, walked to its leaves, may hold video files, one clip or more taken
from each, and .npz files with uint8 arrays `videos` [n t h w 3] (the first
array where there is none of that name), which are taken as they are. What
cannot be used is named in the log and left out.
"""

from collections.abc import Callable, Iterator, Sequence
import functools
import os
import pathlib
import zipfile

from absl import logging
import cv2
from etils.array_types import IntArray, StrArray, ui8
import numpy as np

from vdm.preparation import decoding
from vdm.preparation import geometry
from vdm.preparation import inspection

VIDEO_SUFFIXES = frozenset('.avi .gif .m4v .mkv .mov .mp4 .webm'.split())


def read_clips(
  path: str | os.PathLike[str],
  *,
  frames: int,
  resolution: int,
  num: int,
  stride: int = 1,
  frame_rate: float = 0.0,
  per_video: int = 1,
  sampling: str = 'random',
  seed: int = 0,
) -> tuple[ui8['n t h w 3'], StrArray[' n']]:
  """Returns clips and the file that each comes from.

  Args:
    path: folder, or one file.
    frames: frames of a clip; longer ones in .npz files are cut off.
    resolution: height and width, px. Videos are cropped to a square and
      averaged down, arrays must be square and not smaller.
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
  path = pathlib.Path(path)
  files = _files(path)
  random = np.random.default_rng(seed)
  if sampling != 'first':
    files = [files[i] for i in random.permutation(len(files))]
  span = (frames - 1) * stride + 1
  choose = functools.partial(
    _starts,
    span=span,
    max_clips=min(per_video, -(-num // max(1, len(files)))),
    sampling=sampling,
    random=random,
  )
  clips, names = [], []
  for file in files:
    name = str(file.relative_to(path)) if path.is_dir() else file.name
    try:
      if file.suffix == '.npz':
        for clip in _from_arrays(file, frames, stride, resolution):
          clips.append(clip)
          names.append(f'{name}/{len(names)}')
      else:
        for clip in _from_video(
          file, range(0, span, stride), resolution, frame_rate, choose
        ):
          clips.append(clip)
          names.append(name)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
      logging.warning('%s is left out: %s.', file, error)
    if len(clips) >= num:
      break
  if not clips:
    raise ValueError(
      f'{path} holds no clip of {span} frames and {resolution} px that can be '
      'read: give another folder, fewer frames or a lower resolution.'
    )
  return np.stack(clips[:num]), np.array(names[:num])


def _files(path: pathlib.Path) -> list[pathlib.Path]:
  if not path.exists():
    raise FileNotFoundError(f'There is no folder {path}.')
  suffixes = VIDEO_SUFFIXES | {'.npz'}
  if path.is_file():
    return [path]
  return sorted(
    f for f in path.rglob('*') if f.suffix.lower() in suffixes and f.is_file()
  )


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
  file: pathlib.Path, frames: int, stride: int, resolution: int
) -> Iterator[ui8['t h w 3']]:
  """Yields the clips of an .npz file."""
  with np.load(file, allow_pickle=False) as arrays:
    names = arrays.files
    videos = arrays['videos' if 'videos' in names else names[0]]
  if videos.ndim == 4:
    videos = videos[None]
  if videos.dtype != np.uint8 or videos.ndim != 5 or videos.shape[-1] != 3:
    raise ValueError(
      f'it holds {videos.dtype} {videos.shape}, not uint8 [n t h w 3]'
    )
  t, h, w = videos.shape[1:4]
  if t < (frames - 1) * stride + 1 or h != w or h < resolution:
    raise ValueError(
      f'its clips are {t} frames of {w}x{h} px, not {frames} at stride {stride}'
      f' of {resolution} px or more'
    )
  for video in videos[:, : (frames - 1) * stride + 1 : stride]:
    if h > resolution:
      size = (resolution, resolution)
      video = np.stack(
        [cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in video]
      )
    yield video


def _from_video(
  file: pathlib.Path,
  offsets: Sequence[int],
  resolution: int,
  frame_rate: float,
  choose: Callable[[int], IntArray[' m']],
) -> Iterator[ui8['t h w 3']]:
  """Yields the clips of a video file.

  Args:
    file: to read.
    offsets: of a clip's frames from its first.
    resolution: height and width, px.
    frame_rate: that it is resampled to; 0: its own.
    choose: returns the first frames of clips, from the number of frames.
  """
  # Where every frame is used, the rate of a raw stream does not matter.
  info = inspection.inspect(str(file), assumed_rate=frame_rate or 1.0)
  inspection.check_size(info, resolution)
  runs = [
    info.resample(frame_rate or info.frame_rate, start, stop)
    for start, stop in info.unbroken()
  ]
  shown = max(runs, key=len)  # No clip goes over a pause.
  wanted = shown[choose(len(shown))[:, None] + np.array(offsets)]
  indices = np.unique(wanted)
  images = {
    index: geometry.crop_square(frame, resolution, info.pixel_aspect)
    for index, frame in zip(
      indices,
      decoding.read(str(file), indices, field_order=info.field_order),
    )
  }
  for clip in wanted:
    yield np.stack([images[index] for index in clip])
