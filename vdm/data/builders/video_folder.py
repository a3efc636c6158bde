"""Any folder tree of videos; its top sub-folders are the labels, if any.

Ten sources or more: one in ten, chosen by its content, is for validation.
Fewer: the last fifth of each, as a shot of its own, so that no window touches
both. Files that cannot be used are skipped with a reason.
"""

from collections.abc import Iterator
import itertools

from vdm.data import video
from vdm.data.builders import parallel
from vdm.data.builders import records
from vdm.data.builders import sources
from vdm.data.builders import videos

_MIN_SOURCES = 10  # From here on whole sources are held out, one in ten.
_SUFFIXES = (
  *('.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.ts'),
  *('.mts', '.m2ts', '.wmv', '.flv', '.3gp', '.ogv', '.y4m'),
)


def config_name(data, folder: str) -> str:
  """Returns the part of the directory that names settings and source."""
  return videos.config_name(data, folder, _settings)


def make_plan(data, *, allow_missing: bool = False) -> records.Plan:
  """Returns how to build the dataset.

  Args:
    data: `config.data`; `source` is a folder or an archive.
    allow_missing: changes nothing: no list says what must be there.
  """
  del allow_missing
  with sources.open_tree(data.source) as files:
    labels = sorted({_label_name(f) for f in files if _is_video(f)} - {''})
  return records.Plan(
    name='video_folder',
    config_name=config_name(data, ''),
    settings=_settings(data),
    label_names=labels,
    splits=('train', 'validation'),
    shots=lambda: _shots(data, labels),
  )


def _shots(data, labels) -> Iterator[records.Shot | records.Skipped]:
  with sources.open_tree(data.source) as files:
    files = [file for file in files if _is_video(file)]
    checked = videos.check(files, data.resolution)
    found = [s for s in checked if isinstance(s, video.Source)]
    held_out = _held_out([source.sha256 for source in found])
    pairs = zip(files, checked)
    for file, source in parallel.track(
      pairs, len(files), 'storing videos', 'file'
    ):
      if isinstance(source, video.VideoError):
        yield records.Skipped(file.name, source.reason, str(source))
        continue
      name = _label_name(file)
      label = labels.index(name) if name else -1
      yield from _shots_of(file, source, label, held_out, data)


def _shots_of(
  file, source, label: int, held_out: set[str] | None, data
) -> Iterator[records.Shot]:
  n, frames = videos.frames(file, source, data)
  if held_out is None:
    parts = {'train': n - n // 5, 'validation': n // 5}
  else:
    parts = {'validation' if source.sha256 in held_out else 'train': n}
  for split, length in parts.items():
    if length:
      # One reading of the file serves both parts, one after the other.
      yield records.Shot(
        id=f'{file.name}:{split}',
        frames=itertools.islice(frames, length),
        n=length,
        frame_rate=data.frame_rate,
        height=source.height,
        width=source.width,
        splits=(split,),
        source_sha256=source.sha256,
        group=file.name,
        label=label,
      )


def _held_out(digests: list[str]) -> set[str] | None:
  """Returns the digests for validation; None: a part of every source is.

  By content, so that copies of a file land on one side, and new files hardly
  move the others.
  """
  digests = sorted(set(digests))
  if len(digests) < _MIN_SOURCES:
    return None
  return set(digests[: len(digests) // 10])


def _settings(data) -> dict:
  listing = sources.listing(data.source, _SUFFIXES)
  return dict(videos.settings(data), listing=listing)


def _is_video(file: sources.File) -> bool:
  return file.name.lower().endswith(_SUFFIXES)


def _label_name(file: sources.File) -> str:
  """Returns the top sub-folder, '' for a file outside all of them."""
  return file.name.split('/')[0] if '/' in file.name else ''
