"""What the datasets made from video files share: names, preparing, shots."""

from collections.abc import Callable, Iterator, Sequence
import functools
import os
import shutil
from typing import Any

from absl import logging

from vdm.common import parallel
from vdm.common import progress
from vdm.data.builders import reader
from vdm.data.builders import shot_records
from vdm.preparation import corpus
from vdm.preparation import data_report
from vdm.preparation import prepare_file
from vdm.preparation import sources
from vdm.preparation import staging_area
from vdm.preparation import workers

# Calls a function on items, somewhere; see `workers.run`.
Runner = Callable[..., Iterator[tuple[int, Any]]]


def config_name(
  data, folder: str, settings: Callable[[Any], dict[str, Any]]
) -> str:
  """Returns the part of the directory that names settings and source.

  Where the videos are not at hand, as on a machine that only trains, the one
  dataset in `folder` with these settings is meant.

  Args:
    data: `config.data`.
    folder: where datasets of this name live.
    settings: gives all that the content depends on, from `data`.

  Raises:
    MissingDataset: without the videos, if there is no such dataset.
    ValueError: without the videos, if there are several.
  """
  prefix = f'{data.resolution}px_{data.frame_rate:g}fps_{data.encoding}_'
  if data.source and os.path.exists(data.source):
    return prefix + shot_records.settings_hash(settings(data))
  names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
  built = [
    name
    for name in names
    if name.startswith(prefix)
    and any(
      reader.is_complete(os.path.join(folder, name, version))
      for version in os.listdir(os.path.join(folder, name))
    )
  ]
  if len(built) == 1:
    return built[0]
  if built:
    raise ValueError(
      f'data.source {data.source!r} does not exist, and {folder} has several'
      f' datasets that fit ({", ".join(built)}); set data.source to the'
      ' videos of one.'
    )
  raise reader.MissingDataset(
    f'data.source {data.source!r} does not exist and {folder} has no dataset'
    f' {prefix}*; set data.source to the videos and run `python -m'
    ' vdm.prepare clips --config <this config>`.'
  )


def settings(data) -> dict[str, Any]:
  """Returns the settings that every dataset of videos depends on."""
  return dict(file_settings(data), clip_frames=data.clip_frames)


def staging_of(data, config_name: str) -> staging_area.Staging:
  """Returns where what comes of each file waits for the others."""
  return staging_area.Staging(
    os.path.join(data.root, data.name, f'{config_name}.staging')
  )


class Build:
  """One build of a dataset of videos: from files to shots and a report.

  Attributes:
    data: `config.data`.
    results: what came of each file, once `prepare` has returned.
  """

  def __init__(
    self,
    data,
    staging: staging_area.Staging,
    runner: Runner | None = None,
  ):
    """Starts.

    Args:
      data: `config.data`.
      staging: where finished files are found, and put.
      runner: what calls `prepare_file.prepare` on tasks, see `workers.run`;
        None: worker processes of this machine.
    """
    self.data, self.results = data, []
    self._staging, self._runner = staging, runner
    self._skipped, self._stored = [], []

  def prepare(self, files: Sequence[sources.File]) -> list[staging_area.Result]:
    """Prepares the files that are not finished yet.

    Returns:
      What came of each file, in their order.
    """
    data, limits = self.data, self.data.limits
    own = file_settings(data)
    tasks = [
      prepare_file.Task(file, own, limits.pixels, self._staging)
      for file in files
    ]
    waiting = [task for task in tasks if not _is_finished(task)]
    if len(waiting) < len(tasks):
      logging.info(
        '%d of %d videos were prepared before.',
        len(tasks) - len(waiting),
        len(tasks),
      )
    run = self._runner or functools.partial(
      workers.run,
      workers=limits.workers or parallel.num_processors(),
      limits=worker_limits(data),
    )
    outcomes = run(prepare_file.prepare, waiting)
    for number, outcome in progress.track(
      outcomes, len(waiting), 'preparing videos', 'file'
    ):
      if isinstance(outcome, workers.Failure):
        prepare_file.fail(waiting[number], outcome)
    self.results = [
      self._staging.read(task.file.name, task.stamp()) for task in tasks
    ]
    return self.results

  def skipped(self) -> list[shot_records.Skipped]:
    """Returns the files of which nothing stays, with their reasons."""
    self._skipped = [
      shot_records.Skipped(result.name, *why)
      for result in self.results
      if (why := corpus.why_nothing(result))
    ]
    return list(self._skipped)

  def add_skipped(self, skipped: Sequence[shot_records.Skipped]):
    """Takes files into the report that were left out for other reasons."""
    self._skipped = list(skipped)

  def shots(
    self,
    result: staging_area.Result,
    splits: Sequence[str],
    *,
    name: str,
    keep: Callable[[int], Sequence[tuple[str, int, int]]] | None = None,
    **values,
  ) -> Iterator[shot_records.Shot]:
    """Yields what is stored of a file.

    Args:
      result: of the file.
      splits: that its shots belong to.
      name: that their ids begin with.
      keep: from a shot's number of frames its parts as (split, first frame,
        one past the last), where not all of it is in `splits`.
      **values: more fields of each shot.
    """
    length = self.data.clip_frames
    whole = len(result.shots) == 1 and not length
    for shot in result.shots:
      if shot.reason:
        continue
      if keep:
        parts = [((split,), a, b) for split, a, b in keep(shot.n)]
      else:
        parts = [(tuple(splits), 0, shot.n)]
      for own, first, last in parts:
        step = length or last - first
        for start in range(first, last - step + 1, step):
          ident = name if whole else f'{name}:{shot.start:06d}'
          if start or length:
            ident += f':{start:06d}'
          stored = shot_records.Shot(
            id=ident,
            frames=self._staging.frames(result.name, shot, start, start + step),
            n=step,
            frame_rate=self.data.frame_rate,
            height=result.facts['height'],
            width=result.facts['width'],
            splits=own,
            source_sha256=result.facts['sha256'],
            **values,
          )
          self._stored.append(
            dict(
              id=ident,
              source=result.name,
              splits=list(own),
              n=step,
              group=stored.group,
              label=stored.label,
              caption=stored.caption,
              shot_start=shot.start,
              start=start,
            )
          )
          yield stored

  def make_report(self, fingerprint: str) -> dict[str, bytes]:
    """Returns the manifest and the report, by file name."""
    return data_report.make(
      self.results,
      self._stored,
      {skip.source: (skip.reason, skip.message) for skip in self._skipped},
      staging=self._staging,
      data=self.data,
      name=self.data.name,
      fingerprint=fingerprint,
    )

  def remove_staging(self):
    """Removes what was staged; the dataset holds it now."""
    shutil.rmtree(self._staging.folder, ignore_errors=True)


def worker_limits(data) -> workers.Limits:
  """Returns what one process may use on one video."""
  limits = data.limits
  return workers.Limits(limits.seconds, limits.stall_seconds, limits.memory_mb)


def file_settings(data) -> dict[str, Any]:
  """Returns the part of `config.data` that what comes of a file depends on."""
  own = {name: data[name] for name in prepare_file.SETTINGS}
  own['screening'] = dict(data.screening, rules=list(data.screening.rules))
  return own


def _is_finished(task: prepare_file.Task) -> bool:
  result = task.staging.read(task.file.name, task.stamp())
  # What was beyond the limits, or failed for want of space, may do better now.
  tried_again = (*workers.LIMIT_REASONS, 'failed')
  return bool(result) and result.reason not in tried_again
