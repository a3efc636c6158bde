"""Any folder tree of videos; its top sub-folders are the labels, if any.

Whole recordings are held out for validation, chosen by their content; which
files are one recording, `data.group` says. Where there is one recording alone
the end of each of its shots is held out, as a shot of its own, so that no
window touches both. Files that cannot be used are skipped with a reason.
"""

from collections.abc import Iterator
import os

from absl import logging

from vdm.data.builders import shot_records
from vdm.preparation import captions
from vdm.preparation import corpus
from vdm.preparation import decoding
from vdm.preparation import sources
from vdm.preparation import splits
from vdm.preparation import video_dataset

_SUFFIXES = (
  *('.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.ts'),
  *('.mts', '.m2ts', '.wmv', '.flv', '.3gp', '.ogv', '.y4m'),
)


def config_name(data, folder: str) -> str:
  """Returns the part of the directory that names settings and source."""
  return video_dataset.config_name(data, folder, _settings)


def make_plan(
  data,
  *,
  allow_missing: bool = False,
  runner: video_dataset.Runner | None = None,
) -> shot_records.Plan:
  """Returns how to build the dataset.

  Args:
    data: `config.data`; `source` is a folder or an archive.
    allow_missing: changes nothing: no list says what must be there.
    runner: see `video_dataset.prepare`.
  """
  del allow_missing
  rows = _read_captions(data)
  labels = []
  if rows is None:
    with sources.open_tree(data.source) as files:
      labels = sorted({_label_name(f) for f in files if _is_video(f)} - {''})
  name = config_name(data, '')
  build = video_dataset.Build(
    data, video_dataset.staging_of(data, name), runner
  )
  return shot_records.Plan(
    name=data.name,
    config_name=name,
    settings=_settings(data),
    label_names=labels,
    splits=('train', 'validation'),
    shots=lambda: _shots(build, labels, rows),
    extras=build.make_report,
    done=build.remove_staging,
  )


def _shots(
  build: video_dataset.Build,
  labels: list[str],
  rows: dict[str, captions.Row] | None,
) -> Iterator[shot_records.Shot | shot_records.Skipped]:
  data = build.data
  with sources.open_tree(data.source) as files:
    files = [file for file in files if _is_video(file)]
    refused = _refused(files, rows, data)
    results = build.prepare([f for f in files if f.name not in refused])
  pairs = []
  if 'duplicate' in data.screening.rules:
    pairs = corpus.drop_duplicates(results, data.screening.duplicate_distance)
  groups = splits.merge(
    [splits.group_name(result.name, data.group) for result in results], pairs
  )
  if 'overlay' in data.screening.rules:
    publishers = [
      rows[captions.stem(result.name)].source if rows else group
      for result, group in zip(results, groups)
    ]
    corpus.drop_watermarked(
      results,
      publishers,
      limit=data.screening.max_overlay,
      most=data.screening.max_overlay_sources,
    )
  skipped = build.skipped() + [
    shot_records.Skipped(name, *why) for name, why in sorted(refused.items())
  ]
  build.add_skipped(skipped)
  yield from skipped
  names = {skip.source for skip in skipped}
  kept = [i for i, result in enumerate(results) if result.name not in names]
  held_out = splits.held_out(
    [groups[i] for i in kept],
    [results[i].facts['sha256'] for i in kept],
    data.validation,
  )
  if held_out is None and kept and data.validation:
    logging.warning(
      'There is one recording alone: the validation clips are its end.'
    )
  for i in kept:
    side = 'train'
    if held_out and groups[i] in held_out:
      side = 'validation'
    name = results[i].name
    label = _label_name(results[i]) if labels else ''
    yield from build.shots(
      results[i],
      (side,),
      name=name,
      caption=rows[captions.stem(name)].caption if rows else '',
      keep=_ends(data) if held_out is None else None,
      group=groups[i],
      label=labels.index(label) if label else -1,
    )


def _read_captions(data) -> dict[str, captions.Row] | None:
  """Returns the manifest's rows by the file they are about."""
  options = data.captions
  if not options.manifest:
    return None
  columns = ('file', 'folder', 'caption', 'source', 'duration')
  try:
    rows = captions.read(
      options.manifest, {name: options[name] for name in columns}
    )
  except (OSError, ValueError) as error:
    raise shot_records.BuildError(f'data.captions.manifest: {error}') from error
  return {row.file: row for row in rows}


def _refused(files, rows, data) -> dict[str, tuple[str, str]]:
  """Returns why files are left out that need not be decoded for it."""
  if rows is None:
    return {}
  why = captions.screen(list(rows.values()), data.captions)
  refused = {}
  for file in files:
    key = captions.stem(file.name)
    if key not in rows:
      refused[file.name] = 'not_in_manifest', 'no row of the manifest names it'
    elif key in why:
      refused[file.name] = why[key]
  missing = len(set(rows) - {captions.stem(file.name) for file in files})
  if missing:
    logging.warning('%d rows of the manifest name no file.', missing)
  return refused


def _ends(data):
  """Returns what divides the frames of the only recording."""

  def keep(n):
    held_out = max(round(n * data.validation), data.min_frames)
    if not data.validation or n - held_out < data.min_frames:
      held_out = 0
    parts = (('train', 0, n - held_out), ('validation', n - held_out, n))
    return [part for part in parts if part[1] < part[2]]

  return keep


def _settings(data) -> dict:
  return dict(
    video_dataset.settings(data),
    group=data.group,
    validation=data.validation,
    captions=_caption_settings(data),
    listing=sources.listing(data.source, _SUFFIXES),
  )


def _caption_settings(data) -> dict:
  if not data.captions.manifest:
    return {}
  options = data.captions.to_dict()
  path = options.pop('manifest')
  options['boilerplate'] = list(options['boilerplate'])
  digest = decoding.file_sha256(path) if os.path.exists(path) else path
  return dict(options, manifest=digest)


def _is_video(file: sources.File) -> bool:
  return file.name.lower().endswith(_SUFFIXES)


def _label_name(file) -> str:
  """Returns the top sub-folder, '' for a file outside all of them."""
  return file.name.split('/')[0] if '/' in file.name else ''
