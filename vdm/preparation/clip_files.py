"""Clips from a folder of videos or of arrays, for anyone's samples.

A folder, walked to its leaves, may hold video files, one clip or more taken
from each, and .npz files with uint8 arrays `videos` [n t h w 3] (the first
array where there is none of that name), which are taken as they are. What
cannot be used is named in the log and left out.
"""

from collections.abc import Iterator
import pathlib
import zipfile

from absl import logging
import cv2
import numpy as np

from vdm.preparation import decoding

SAMPLING = ('random', 'middle', 'first')
VIDEO_SUFFIXES = frozenset('.avi .gif .m4v .mkv .mov .mp4 .webm'.split())


def read_clips(
  path,
  *,
  frames: int,
  resolution: int,
  num: int,
  stride: int = 1,
  frame_rate: float = 0.0,
  per_video: int = 1,
  sampling: str = 'random',
  seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns clips and the file that each comes from.

  Args:
    path: folder, or one file.
    frames: frames of a clip; longer ones in .npz files are cut off.
    resolution: height and width, px. Videos are cropped to a square and
      averaged down, arrays must be square and not smaller.
    num: clips at most.
    stride: frames from one of a clip to the next.
    frame_rate: that videos are brought to first; 0: each its own.
    per_video: clips of a video file, at most, and no more than it takes to have
      `num`; they do not overlap.
    sampling: 'random': files in a seeded order, clips from seeded places;
      'middle': the same order, from the middle; 'first': files by name, clips
      from their beginning, as StyleGAN-V takes them.
    seed: of what is drawn.

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
  per_video = min(per_video, -(-num // max(1, len(files))))
  clips, names = [], []
  for file in files:
    name = str(file.relative_to(path)) if path.is_dir() else file.name
    try:
      if file.suffix == '.npz':
        for clip in _arrays(file, frames, stride, resolution):
          clips.append(clip)
          names.append(f'{name}/{len(names)}')
      else:
        for clip in _windows(
          file,
          span,
          stride,
          frame_rate,
          resolution,
          per_video,
          sampling,
          random,
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


def _arrays(file, frames, stride, resolution) -> Iterator[np.ndarray]:
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


def _windows(
  file, span, stride, frame_rate, resolution, per_video, sampling, random
) -> Iterator[np.ndarray]:
  """Yields clips of a video file that do not overlap, in order of time."""
  # Where every frame is taken, a raw stream's rate does not matter.
  source = decoding.inspect(str(file), assumed_rate=frame_rate or 1.0)
  decoding.check_size(source, resolution)
  shown = decoding.select(source.times, frame_rate or source.frame_rate)
  spare = len(shown) - span
  if spare < 0:
    raise ValueError(f'it has {len(shown)} frames of the {span} of a clip')
  count = min(per_video, len(shown) // span)
  # The spare frames, divided over the gaps before, between and after clips.
  spare -= (count - 1) * span
  if sampling == 'random':
    gaps = np.sort(random.integers(0, spare + 1, count))
  elif sampling == 'middle':
    gaps = np.round((np.arange(count) + 0.5) * spare / count).astype(int)
  else:
    gaps = np.zeros(count, int)
  wanted = (gaps + np.arange(count) * span)[:, None] + np.arange(
    0, span, stride
  )
  wanted = shown[wanted]
  places = np.unique(wanted)
  images = {
    place: decoding.fit(frame, resolution, source.pixel_aspect)
    for place, frame in zip(places, decoding.read(str(file), places))
  }
  for rows in wanted:
    yield np.stack([images[place] for place in rows])
