"""Writes generated videos: samples.npz, a contact sheet and a grid."""

from collections.abc import Sequence

from etils import epath
from etils.array_types import IntArray, ui8
import numpy as np

from vdm.common import files
from vdm.media import video_files

SHEET_VIDEOS = 16
GRID_VIDEOS = 64


def write(
  folder: epath.PathLike,
  videos: ui8['n t h w 3'],
  labels: IntArray[' n'],
  label_names: Sequence[str],
  seeds: IntArray[' n'],
  frame_rate: float,
  each: bool = False,
) -> None:
  """Writes samples.npz with all videos, sheet.png and grid.mp4 of the first.

  Args:
    folder: where to write.
    videos: the samples.
    labels: their classes, -1 for none.
    label_names: names of the classes.
    seeds: of the samples.
    frame_rate: frames per second.
    each: also write every video as seed_XXXXXX.mp4.
  """
  folder = epath.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  files.write_npz(
    folder / 'samples.npz',
    {
      'videos': videos,
      'labels': np.asarray(labels, np.int32),
      'label_names': np.asarray(label_names, dtype=np.str_),
      'seeds': np.asarray(seeds, np.int64),
    },
  )
  captions = [
    f'{label_names[label] if label >= 0 else "sample"}\nseed {seed}'
    for label, seed in zip(labels, seeds)
  ]
  sheet = video_files.contact_sheet(
    videos[:SHEET_VIDEOS], captions[:SHEET_VIDEOS], upscale=2
  )
  video_files.write_png(folder / 'sheet.png', sheet)
  grid = video_files.tile(videos[:GRID_VIDEOS])
  video_files.write_mp4(folder / 'grid.mp4', grid, frame_rate, upscale=2)
  for video, seed in zip(videos, seeds) if each else ():
    path = folder / f'seed_{seed:06d}.mp4'
    video_files.write_mp4(path, video, frame_rate, upscale=None)
