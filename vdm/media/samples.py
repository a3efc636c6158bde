"""Writes generated videos, for metrics and for people.

`samples.npz` has the arrays, which metrics read, and `samples.json` how they
were made. The rest is to be watched: a contact sheet, and a grid as mp4 and
GIF, labelled and repeated. A folder never mixes the files of two calls.
"""

from collections.abc import Sequence
import json
import re
import textwrap
from typing import Any
import zipfile

from etils import epath
from etils.array_types import IntArray, ui8
import numpy as np

from vdm.common import files
from vdm.common import progress
from vdm.media import video_files

SHEET_VIDEOS = 16
GRID_VIDEOS = 64
WIDTH, LINES = 18, 3  # Of a caption above a video, letters and lines at most.
ARRAYS, RECORD = 'samples.npz', 'samples.json'
# In a run's final/: the step that its videos and numbers are of, and a few real
# clips with their reconstructions.
FINAL, REAL = 'step.txt', 'real.npz'
# The names of all files that `write` writes.
NAMES = re.compile(
  r'samples\.(npz|json)|sheet\.png|grid\.(mp4|gif)|seed_\d+\.(mp4|gif)'
)


def wrapped(caption: str) -> str:
  """Returns a caption in lines that fit above a video, cut off if long."""
  return '\n'.join(
    textwrap.wrap(caption, WIDTH, max_lines=LINES, placeholder=' ...')
  )


def check_free(folder: epath.PathLike) -> None:
  """Raises a FileExistsError if a folder holds samples."""
  if _written(epath.Path(folder)):
    raise FileExistsError(
      f'{folder} already holds samples: give another --out, or --overwrite to '
      'replace them.'
    )


def write(
  folder: epath.PathLike,
  videos: ui8['n t h w 3'],
  labels: IntArray[' n'],
  label_names: Sequence[str],
  seeds: IntArray[' n'],
  frame_rate: float,
  made_with: dict[str, Any],
  each: bool = False,
  prompts: Sequence[str] = (),
) -> None:
  """Writes samples.npz with all videos, sheet.png and a grid of the first.

  Args:
    folder: where to write; samples that are there are removed.
    videos: the samples.
    labels: their classes, -1 for none.
    label_names: names of the classes.
    seeds: of the samples.
    frame_rate: frames per second.
    made_with: how they were made, for samples.json, which is written last.
    each: also write every video as seed_XXXXXX.mp4 and .gif.
    prompts: a caption each that they were made for; (): none.
  """
  folder = epath.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  for path in _written(folder):
    path.unlink()
  files.write_npz(
    folder / ARRAYS,
    {
      'videos': videos,
      'labels': np.asarray(labels, np.int32),
      'label_names': np.asarray(label_names, dtype=np.str_),
      'seeds': np.asarray(seeds, np.int64),
    },
  )
  names = [label_names[n] if n >= 0 else 'sample' for n in labels]
  names = [wrapped(x) or y for x, y in zip(prompts or [''] * len(names), names)]
  captions = [f'{name}\nseed {seed}' for name, seed in zip(names, seeds)]
  sheet = video_files.contact_sheet(
    videos[:SHEET_VIDEOS], captions[:SHEET_VIDEOS], upscale=2
  )
  video_files.write_png(folder / 'sheet.png', sheet)
  video_files.write_grid(
    folder / 'grid', videos[:GRID_VIDEOS], frame_rate, captions[:GRID_VIDEOS]
  )
  single = list(zip(videos, names, seeds)) if each else []
  for video, name, seed in progress.track(single, len(single), 'Files'):
    video = video_files.tile(
      video_files.enlarge(video[None]), captions=[f'{name}, seed {seed}']
    )
    video_files.write_loop(folder / f'seed_{seed:06d}', video, frame_rate)
  record = {
    **made_with,
    'frame_rate': float(frame_rate),
    'seeds': np.asarray(seeds).tolist(),
    'labels': np.asarray(labels).tolist(),
    'label_names': list(label_names),
  }
  if prompts:
    record['captions'] = list(map(str, prompts))
  files.write_json(folder / RECORD, record)


def read_first(
  folder: epath.PathLike, count: int
) -> tuple[ui8['n t h w 3'], IntArray[' n'], IntArray[' n']]:
  """Returns videos, labels and seeds of the first samples of a folder.

  Of the videos only as many are read, which may be few of many gigabytes.

  Args:
    folder: that `write` has written.
    count: number of samples, at most.

  Raises:
    FileNotFoundError: there are none.
    ValueError: the file is not as `write` wrote it.
  """
  try:
    with (
      (epath.Path(folder) / ARRAYS).open('rb') as file,
      zipfile.ZipFile(file) as archive,
    ):
      with archive.open('videos.npy') as member:
        videos = _read_rows(member, count)
      others = []
      for name in ('labels', 'seeds'):
        with archive.open(f'{name}.npy') as member:
          others.append(np.lib.format.read_array(member, allow_pickle=False))
  except (zipfile.BadZipFile, KeyError) as error:
    raise ValueError(f'it is no {ARRAYS}: {error}') from error
  return videos, *(x[: len(videos)] for x in others)


def frame_rate(folder: epath.PathLike) -> float | None:
  """Returns the frames a second of a folder's samples; None if not recorded."""
  path = epath.Path(folder) / RECORD
  if not path.exists():
    return None
  rate = json.loads(path.read_text()).get('frame_rate')
  return float(rate) if isinstance(rate, (int, float)) and rate > 0 else None


def _read_rows(member, count: int) -> np.ndarray:
  """Returns the first rows of an array in NumPy's file format."""
  version = np.lib.format.read_magic(member)
  read = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  if version not in read:
    raise ValueError(f'an array of the unknown version {version}')
  shape, fortran, dtype = read[version](member)
  if fortran or dtype != np.uint8 or len(shape) != 5:
    raise ValueError(f'{dtype} {shape} are no videos')
  shape = (min(count, shape[0]), *shape[1:])
  size = int(np.prod(shape))
  data = member.read(size)
  if len(data) != size:
    raise ValueError('the file is cut off')
  return np.frombuffer(data, np.uint8).reshape(shape)


def _written(folder) -> list[epath.Path]:
  """Returns the files of an earlier call of `write`."""
  if not folder.exists():
    return []
  return [path for path in folder.iterdir() if NAMES.fullmatch(path.name)]
