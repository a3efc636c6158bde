"""Moving pictures of runs: previews over the steps, and the last videos.

Everything is encoded anew as WebP and bounded: a page holds so many bytes of
pictures, however long the run or large its videos.
"""

from collections.abc import Sequence
import re
import zipfile

from etils import epath
from etils.array_types import IntArray, ui8
import numpy as np

from vdm.media import loops
from vdm.media import samples
from vdm.media import video_files
from vdm.reporting import run_record
from vdm.training import stages

STEPS = 12  # Previews of a stage, at most.
BYTES = 5 * 2**20  # Of all previews of a page.
WIDTH = 1100  # Px.
COLUMNS = 8  # Videos beside each other.
FILES = ('grid.gif', 'grid.mp4', 'sheet.png')  # Of a preview, best first.


def previews(
  record: run_record.Record,
) -> list[tuple[str, list[tuple[str, bytes]], int]]:
  """Returns the previews of a run, encoded.

  Returns:
    (stage, [(caption, WebP)], how many previews there are) of each stage that
    has some, spread evenly over its steps where there are too many.
  """
  folders = {}
  for path in _folders(record.workdir / 'samples'):
    folders.setdefault(_stage_at(record, _step_of(path)), []).append(path)
  found = []
  for name, paths in folders.items():
    room = BYTES // len(folders)
    last = _encode(paths[-1])
    if last is None:
      continue
    count = max(1, min(STEPS, len(paths), room // len(last)))
    chosen = [paths[i] for i in _spread(len(paths), count)[:-1]]
    pictures = [(path, _encode(path)) for path in chosen]
    pictures = [(path, data) for path, data in pictures if data]
    pictures.append((paths[-1], last))
    captions = [(f'step {_step_of(path):,}', data) for path, data in pictures]
    found.append((name, captions, len(paths)))
  return found


def beside_real(record: run_record.Record) -> bytes | None:
  """Returns real clips above their reconstructions above final samples.

  None where the run has not stored them: it is not finished, or of an earlier
  version. A damaged file is None, too, and named in the record's problems.
  """
  folder = record.workdir / 'final'
  made = final_samples(record)
  if made is None or not (folder / samples.REAL).exists():
    return None
  try:
    with (folder / samples.REAL).open('rb') as file:
      arrays = np.load(file, allow_pickle=False)
      real = {name: arrays[name] for name in ('videos', 'reconstructions')}
      labels = arrays['labels']
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    record.problems.append(f'final/{samples.REAL} cannot be read: {error}')
    return None
  videos, made_labels, _, rate = made
  columns = min(COLUMNS, len(videos), len(labels))
  rows = {
    'real': (real['videos'], labels),
    'reconstruction': (real['reconstructions'], labels),
    'sample': (videos, made_labels),
  }
  return grid(
    [clips[:columns] for clips, _ in rows.values()],
    [
      [f'{name}\n{_label(record, label)}' for label in known[:columns]]
      for name, (_, known) in rows.items()
    ],
    rate,
  )


def final_samples(
  record: run_record.Record, count: int = COLUMNS
) -> tuple[ui8['n t h w 3'], IntArray[' n'], IntArray[' n'], float] | None:
  """Returns a run's first final videos: (videos, labels, seeds, frame rate).

  None where there are none.
  """
  folder = record.workdir / 'final'
  if not (folder / samples.FINAL).exists():
    return None
  try:
    videos, labels, seeds = samples.read_first(folder, count)
    rate = samples.frame_rate(folder)
  except (OSError, ValueError) as error:
    record.problems.append(f'final/{samples.ARRAYS} cannot be read: {error}')
    return None
  return videos, labels, seeds, rate or _rate(record)


def grid(
  rows: Sequence[ui8['n t h w 3']],
  captions: Sequence[Sequence[str]],
  frame_rate: float,
) -> bytes:
  """Returns rows of videos as one moving picture.

  Args:
    rows: the videos of each row, as many in each.
    captions: of each row's videos.
    frame_rate: frames a second.
  """
  videos = np.concatenate(rows)
  factor = max(1, round(128 / min(videos.shape[2:4])))
  tiled = video_files.tile(
    video_files.enlarge(videos, factor),
    columns=len(rows[0]),
    pad=4,
    captions=[caption for row in captions for caption in row],
  )
  return loops.webp_bytes(loops.shrink(tiled, WIDTH), frame_rate)


def _folders(folder: epath.Path) -> list[epath.Path]:
  if not folder.exists():
    return []
  found = [p for p in folder.iterdir() if re.fullmatch(r'step_\d+', p.name)]
  return sorted(found, key=_step_of)


def _step_of(path: epath.Path) -> int:
  return int(path.name.removeprefix('step_'))


def _stage_at(record: run_record.Record, step: int) -> str:
  for span in stages.spans(record.config):
    if span.start < step <= span.stop:
      return span.name
  return 'another stage'


def _spread(count: int, chosen: int) -> list[int]:
  """Returns the numbers of `chosen` of `count` items, the ends among them."""
  if chosen == 1:
    return [count - 1]
  places = np.linspace(0, count - 1, chosen).round().astype(int)
  return np.unique(places).tolist()


def _encode(folder: epath.Path) -> bytes | None:
  """Returns a preview as WebP; None if it has no file that can be read."""
  for name in FILES:
    try:
      video, rate = loops.read(folder / name)
    except (OSError, ValueError):
      continue
    return loops.webp_bytes(loops.shrink(video, WIDTH), rate)
  return None


def _label(record: run_record.Record, label: int) -> str:
  names = record.label_names
  return names[label] if 0 <= label < len(names) else ''


def _rate(record: run_record.Record) -> float:
  return record.config.data.frame_rate / record.config.data.stride
