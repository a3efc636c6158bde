"""What all datasets made from video files share: names, preparing, shots."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import os
import shutil
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from vdm.common import parallel
from vdm.common import progress
from vdm.common import sizes
from vdm.data import builders
from vdm.data.builders import build_plan
from vdm.data.builders import directional
from vdm.preparation import data_report
from vdm.preparation import manifest
from vdm.preparation import prepare_file
from vdm.preparation import sources
from vdm.preparation import staging_area
from vdm.preparation import versions
from vdm.preparation import workers

# Divides a shot: from its number of frames to (splits, first frame, one past
# the last) of each part.
Divide = Callable[[int], Sequence[tuple[Sequence[str], int, int]]]


def config_name(
  data: ConfigDict, settings: Callable[[ConfigDict], dict[str, Any]]
) -> str:
  """Returns the part of the directory that names settings and source.

  Where the videos are not available, as on a machine that only trains, it is
  that of the only dataset with these settings.

  Args:
    data: `config.data`.
    settings: returns everything that the content depends on, from `data`.

  Raises:
    MissingDataset: without the videos, if there is no such dataset.
    ValueError: without the videos, if there are several.
  """
  if data.source and os.path.exists(data.source):
    return _name(data, settings(data))
  folder, prefix = os.path.join(data.root, data.name), _prefix(data)
  names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
  built = [
    name
    for name in names
    if name.startswith(prefix)
    and any(
      builders.is_complete(os.path.join(folder, name, version))
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
  raise builders.MissingDataset(
    f'data.source {data.source!r} does not exist and {folder} has no dataset'
    f' {prefix}*; set data.source to the videos and run `python -m'
    ' vdm.prepare clips --config <this config>`.'
  )


def common_settings(data: ConfigDict) -> dict[str, Any]:
  """Returns the settings that every dataset of videos depends on."""
  return dict(file_settings(data), clip_frames=data.clip_frames)


def file_settings(data: ConfigDict) -> dict[str, Any]:
  """Returns the part of `config.data` that the result of a file depends on."""
  own = {name: data[name] for name in prepare_file.SETTINGS}
  own |= sizes.keys(sizes.of(data))
  own['screening'] = dict(data.screening, rules=list(data.screening.rules))
  return own


def worker_limits(limits: ConfigDict) -> workers.Limits:
  """Returns the limits of one process, from `config.data.limits`."""
  return workers.Limits(limits.seconds, limits.stall_seconds, limits.memory_mb)


def make_plan(
  data: ConfigDict,
  settings: dict[str, Any],
  *,
  label_names: Sequence[str],
  splits: Sequence[str],
  shots: Callable[['Build'], Iterator[build_plan.Shot | build_plan.Skipped]],
  runner: workers.Runner | None,
) -> build_plan.Plan:
  """Returns how to build a dataset of videos.

  Args:
    data: `config.data`.
    settings: everything that the content depends on.
    label_names: one per class.
    splits: names of all splits.
    shots: makes the shots, with the help of the build.
    runner: calls `prepare_file.prepare` on tasks; None: worker processes of
      this machine.
  """
  name = _name(data, settings)
  build = Build(data, staging_of(data, name), runner)
  if sided := directional.labels(data.name, label_names):
    build.note(
      f'Labels with a direction: {", ".join(sided)}. Mirrored clips would not'
      ' have them, so training on labels refuses data.flip=True.'
    )
  return build_plan.Plan(
    name=data.name,
    config_name=name,
    settings=settings,
    label_names=label_names,
    splits=splits,
    shots=lambda: shots(build),
    extras=build.make_report,
    done=build.remove_staging,
  )


def staging_of(data: ConfigDict, config_name: str) -> staging_area.Staging:
  """Returns where results of files wait until all are prepared."""
  return staging_area.Staging(
    # Results of another version are not continued.
    os.path.join(
      data.root, data.name, f'{config_name}_{versions.VERSION}.staging'
    )
  )


def undivided(splits: Sequence[str]) -> Divide:
  """Returns what puts every shot into these splits whole."""
  return lambda n: [(splits, 0, n)]


class Build:
  """One build of a dataset of videos: from files to shots and a report.

  Attributes:
    data: `config.data`.
  """

  def __init__(
    self,
    data: ConfigDict,
    staging: staging_area.Staging,
    runner: workers.Runner | None = None,
  ):
    """Initialises a build; see `make_plan`."""
    self.data = data
    self._staging, self._runner = staging, runner
    self._outcome = manifest.Outcome()

  def prepare(self, files: Sequence[sources.File]) -> list[staging_area.Result]:
    """Prepares the files that are not finished yet.

    Returns:
      The result of each file, in their order.
    """
    limits, own = self.data.limits, file_settings(self.data)
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
      limits=worker_limits(limits),
    )
    outcomes = run(prepare_file.prepare, waiting)
    for number, outcome in progress.track(
      outcomes, len(waiting), 'preparing videos', 'file'
    ):
      if isinstance(outcome, workers.Failure):
        prepare_file.fail(waiting[number], outcome)
    self._outcome.results = [
      self._staging.read(task.file.name, task.stamp()) for task in tasks
    ]
    return self._outcome.results

  def note(self, sentence: str) -> None:
    """Notes something about the whole dataset for the report, and logs it."""
    logging.warning(sentence)
    self._outcome.notes.append(sentence)

  def skip(
    self, skipped: Sequence[build_plan.Skipped]
  ) -> Iterator[build_plan.Skipped]:
    """Yields files left out as a whole, and notes them for the report."""
    for skip in skipped:
      self._outcome.skipped[skip.source] = skip.reason, skip.message
      yield skip

  def shots(
    self,
    result: staging_area.Result,
    divide: Divide,
    *,
    name: str,
    **fields: Any,
  ) -> Iterator[build_plan.Shot]:
    """Yields what is stored of a file, and notes it for the report.

    Args:
      result: of the file.
      divide: which part of a shot is in which splits.
      name: prefix of the ids of its shots.
      **fields: more fields of each `build_plan.Shot`.
    """
    length = self.data.clip_frames
    is_whole = len(result.shots) == 1 and not length
    for shot in result.shots:
      if shot.reason:
        continue
      prefix = name if is_whole else f'{name}:{shot.start:06d}'
      for splits, first, last in divide(shot.n):
        n = length or last - first
        for start in range(first, last - n + 1, n):
          record = build_plan.Shot(
            id=f'{prefix}:{start:06d}' if start or length else prefix,
            frames=self._staging.frames(result.name, shot, start, start + n),
            n=n,
            frame_rate=self.data.frame_rate,
            height=result.facts['height'],
            width=result.facts['width'],
            splits=splits,
            source_sha256=result.facts['sha256'],
            **fields,
          )
          # Its frames are an open file until they are read to the end.
          written = dataclasses.replace(record, frames=())
          self._outcome.stored.append(
            manifest.Stored(written, result.name, shot, start)
          )
          yield record

  def make_report(self, fingerprint: str) -> dict[str, bytes]:
    """Returns the manifest and the report of the dataset, by file name."""
    return data_report.make(
      self._outcome,
      data=self.data,
      staging=self._staging,
      fingerprint=fingerprint,
    )

  def remove_staging(self) -> None:
    """Removes the results of files; the dataset contains them now."""
    shutil.rmtree(self._staging.folder, ignore_errors=True)


def _prefix(data: ConfigDict) -> str:
  size = sizes.text(sizes.of(data))
  return f'{size}px_{data.frame_rate:g}fps_{data.encoding}_'


def _name(data: ConfigDict, settings: dict[str, Any]) -> str:
  return _prefix(data) + build_plan.settings_hash(settings)


def _is_finished(task: prepare_file.Task) -> bool:
  result = task.staging.read(task.file.name, task.stamp())
  # Files that exceeded a limit, or failed, may succeed now.
  tried_again = (*workers.LIMIT_REASONS, 'failed')
  return bool(result) and result.reason not in tried_again
