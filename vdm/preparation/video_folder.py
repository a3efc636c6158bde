"""Any folder tree of videos; its top sub-folders are the labels, if any.

Where one folder holds all of the videos, those in it are meant, and so on.
Whole recordings are held out for validation, chosen by their content;
`data.group` defines which files are one recording. Where there is only one
recording the end of each of its shots is held out, as a shot of its own, so
that no window overlaps both. Files that cannot be used are skipped with a
reason.
"""

from collections.abc import Iterator, Sequence
import contextlib
import os
import posixpath
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from vdm.data.builders import build_plan
from vdm.preparation import captions
from vdm.preparation import corpus
from vdm.preparation import inspection
from vdm.preparation import reasons
from vdm.preparation import sources
from vdm.preparation import splits
from vdm.preparation import staging_area
from vdm.preparation import video_dataset
from vdm.preparation import workers

_Rows = dict[str, captions.Row]  # Of the captions' manifest, by file.


def config_name(data: ConfigDict) -> str:
  """Returns the part of the directory that names settings and source."""
  return video_dataset.config_name(data, _settings)


def make_plan(
  data: ConfigDict,
  *,
  allow_missing: bool = False,
  runner: workers.Runner | None = None,
) -> build_plan.Plan:
  """Returns how to build the dataset.

  Args:
    data: `config.data`; `source` is a folder or an archive.
    allow_missing: changes nothing: no list names required files.
    runner: see `video_dataset.make_plan`.

  Raises:
    BuildError: if the captions' manifest cannot be read.
  """
  del allow_missing
  rows = _read_captions(data.captions)
  root, labels = '', []
  if rows is None:
    with _open(data) as tree:
      names = [file.name for file in tree.files]
    root = _root(names)
    labels = sorted({_label(name, root) for name in names} - {''})
  return video_dataset.make_plan(
    data,
    _settings(data),
    label_names=labels,
    splits=('train', 'validation'),
    shots=lambda build: _shots(build, root, labels, rows),
    runner=runner,
  )


def _shots(
  build: video_dataset.Build, root: str, labels: list[str], rows: _Rows | None
) -> Iterator[build_plan.Shot | build_plan.Skipped]:
  data = build.data
  if root:
    classes = 'its sub-folders are the classes' if labels else 'it is no class'
    build.note(f'All videos lie in the folder {root}: {classes}.')
  with _open(data) as tree:
    refused = {}
    if rows is not None:
      names = [file.name for file in tree.files]
      refused = _refused(names, rows, data.captions)
    results = build.prepare([f for f in tree.files if f.name not in refused])
  groups = _group(results, rows, data)
  skipped = reasons.skipped(results) + [
    build_plan.Skipped(name, *why) for name, why in sorted(refused.items())
  ]
  yield from build.skip(skipped + tree.skipped)
  names = {skip.source for skip in skipped}
  kept = [
    (r, group) for r, group in zip(results, groups) if r.name not in names
  ]
  held_out = splits.held_out(
    [group for _, group in kept],
    [result.facts['sha256'] for result, _ in kept],
    data.validation,
  )
  if held_out is None and kept and data.validation:
    logging.warning(
      'There is only one recording: the validation clips are its end.'
    )
  for result, group in kept:
    divide = _hold_out_end(data.validation, data.min_frames)
    if held_out is not None:
      side = 'validation' if group in held_out else 'train'
      divide = video_dataset.undivided((side,))
    label = _label(result.name, root) if labels else ''
    yield from build.shots(
      result,
      divide,
      name=result.name,
      caption=rows[captions.stem(result.name)].caption if rows else '',
      group=group,
      label=labels.index(label) if label else -1,
    )


def _group(
  results: Sequence[staging_area.Result], rows: _Rows | None, data: ConfigDict
) -> list[str]:
  """Returns each file's recording, and leaves out copies and marked shots."""
  pairs = []
  if 'duplicate' in data.screening.rules:
    pairs = corpus.drop_duplicates(results, data.screening.duplicate_distance)
  groups = splits.merge(
    [splits.group_name(result.name, data.group) for result in results], pairs
  )
  if 'overlay' in data.screening.rules:
    publishers = groups
    if rows:
      # Without their column all would be of one publisher.
      publishers = [
        rows[captions.stem(r.name)].source or group
        for r, group in zip(results, groups)
      ]
    corpus.drop_watermarked(
      results,
      publishers,
      limit=data.screening.max_overlay,
      max_share=data.screening.max_overlay_sources,
    )
  return groups


def _hold_out_end(share: float, min_frames: int) -> video_dataset.Divide:
  """Returns what puts the end of every shot into the validation split."""

  def divide(n):
    held_out = max(round(n * share), min_frames)
    if not share or n - held_out < min_frames:
      held_out = 0
    parts = (
      (('train',), 0, n - held_out),
      (('validation',), n - held_out, n),
    )
    return [part for part in parts if part[1] < part[2]]

  return divide


def _read_captions(options: ConfigDict) -> _Rows | None:
  """Returns the rows of the captions' manifest; None if there is none."""
  if not options.manifest:
    return None
  try:
    rows = captions.read(options.manifest, options)
  except (OSError, ValueError) as error:
    raise build_plan.BuildError(f'data.captions.manifest: {error}') from error
  return {row.file: row for row in rows}


def _refused(
  names: Sequence[str], rows: _Rows, options: ConfigDict
) -> dict[str, tuple[str, str]]:
  """Returns (reason, sentence) of files left out for what the rows say."""
  why = captions.screen(list(rows.values()), options)
  refused = {}
  for name in names:
    key = captions.stem(name)
    if key not in rows:
      refused[name] = 'not_in_manifest', 'no row of the manifest names it'
    elif key in why:
      refused[name] = why[key]
  missing = len(set(rows) - {captions.stem(name) for name in names})
  if missing:
    logging.warning('%d rows of the manifest name no file.', missing)
  return refused


def _settings(data: ConfigDict) -> dict[str, Any]:
  return dict(
    video_dataset.common_settings(data),
    group=data.group,
    validation=data.validation,
    captions=_caption_settings(data.captions),
    listing=sources.listing(
      data.source, sources.VIDEO_SUFFIXES, follow_links=data.follow_links
    ),
  )


def _caption_settings(options: ConfigDict) -> dict[str, Any]:
  if not options.manifest:
    return {}
  settings = options.to_dict()
  path = settings.pop('manifest')
  settings['boilerplate'] = list(settings['boilerplate'])
  digest = inspection.file_sha256(path) if os.path.exists(path) else path
  return dict(settings, manifest=digest)


@contextlib.contextmanager
def _open(data: ConfigDict) -> Iterator[sources.Tree]:
  """Yields the videos of the source, and what is left out of it."""
  with sources.open_tree(data.source, follow_links=data.follow_links) as tree:
    yield tree.of_suffixes(sources.VIDEO_SUFFIXES)


def _root(names: Sequence[str]) -> str:
  """Returns the folder whose sub-folders are classes, '' or with a slash.

  It is the one that holds all videos: its own name distinguishes none of them.
  """
  folders = [posixpath.dirname(name) for name in names]
  common = posixpath.commonpath(folders) if folders else ''
  return common and f'{common}/'


def _label(name: str, root: str) -> str:
  """Returns the sub-folder of `root`, '' for a file outside all of them."""
  name = name.removeprefix(root)
  return name.split('/')[0] if '/' in name else ''
