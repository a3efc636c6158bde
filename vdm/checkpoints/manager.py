"""Verified checkpoints: Orbax's v0 `CheckpointManager`, and digests.

A step `<directory>/<step>/` holds items, each a tree of arrays, and `meta`, one
JSON file: the caller's values, and for each leaf of each item its dtype, shape
and digest, all under a sha256. Orbax restores flipped bits in arrays without an
error, casts dtypes silently, lists an empty folder as the latest step and has
no fall-back; so every leaf that is restored is digested again here, and a step
that is not what was saved is logged, skipped and left in place.

On disk an item is flat, {name: leaf}, with the names of
`manifest.named_leaves`: leaves are found by name and never by position, keys
may contain '/', optax's named tuples, empty states and None cost nothing, and
no class is stored. Leaves without elements, which Orbax refuses, are recorded
and not written.

A corrupt step stays until training saves again; then every corrupt step found
is renamed to `<step>.damaged-<k>`, so that it neither blocks the save nor
counts as one of the steps to keep. These are never deleted, for inspection.

A save that was interrupted is removed by the next start. On a local disk it is
a folder that Orbax has not renamed to `<step>` yet; in a bucket, where renaming
copies, the folder is `<step>` from the beginning, and the file
`commit_success.txt` in it is written last.
"""

from collections.abc import Iterator, Mapping
import contextlib
import functools
import itertools
import math
import re
import shutil
from typing import Any

from absl import logging
from etils import epath
import jax
import orbax.checkpoint as ocp

from vdm.checkpoints import best_policy
from vdm.checkpoints import manifest
from vdm.checkpoints import orbax_manager
from vdm.checkpoints import reader
from vdm.common import buckets
from vdm.multihost import coordination


class CheckpointError(RuntimeError):
  """A save failed, or no checkpoint can be used."""


class Checkpoints(contextlib.AbstractContextManager):
  """Saves and restores the steps of one directory.

  Every process of a run creates one, and calls the same methods in the same
  order. Not thread-safe.
  """

  def __init__(
    self,
    directory: epath.PathLike,
    *,
    keep: int = 2,
    keep_every: int = 0,
    by_score: bool = False,
    read_only: bool = False,
  ):
    """Opens the directory.

    Args:
      directory: of the steps; created if missing.
      keep: how many of the latest steps to keep.
      keep_every: also keep the steps divisible by this; 0: none.
      by_score: keep the step with the lowest score, and no other.
      read_only: never writes, renames or deletes: for readers of a run that
        another program may be training.
    """
    self.directory = epath.Path(directory)
    self._local = not buckets.is_remote(directory)
    if self._local:
      self.directory = self.directory.resolve()  # Orbax wants it absolute.
    self._saving = None  # The step that is being written.
    self._valid = set()  # Steps saved, or restored in full, by this object.
    self._corrupt = {}  # {step: reason}
    self._by_score = by_score
    self._manager = None
    if not read_only:
      managers = ocp.checkpoint_managers
      policies = [managers.LatestN(keep)]
      if keep_every:
        policies.append(managers.EveryNSteps(keep_every))
      self._manager = orbax_manager.make(
        self.directory, [self._best] if by_score else policies
      )

  def __exit__(self, *error):
    self.close()

  def steps(self) -> list[int]:
    """Returns the steps on disk, corrupt ones too, in rising order."""
    if not self.directory.exists():
      return []
    return sorted(ocp.utils.checkpoint_steps(self.directory))

  def latest(self) -> int | None:
    """Returns the newest step with a valid record; arrays are not read."""
    for step in reversed(self.steps()):
      if step not in self._corrupt and step != self._saving:
        with self._noting(step):
          reader.read_record(self.directory, step)
          return step
    return None

  @functools.cached_property
  def _best(self) -> best_policy.Best:
    """Scores, of which every step's record is read when they are asked for."""
    best = best_policy.Best()
    for step in self.steps():
      with contextlib.suppress(reader.CorruptCheckpoint):  # Logged when needed.
        best.note(step, reader.read_record(self.directory, step).meta)
    return best

  def best(self) -> int | None:
    """Returns the step with the lowest score; None where none has one."""
    return self._best.step(self.steps())

  def improves(self, score: Mapping[str, Any]) -> bool:
    """Returns whether a step saved with a score would be the best one."""
    return self._best.improves(self.steps(), score)

  def forget_after(self, step: int) -> None:
    """Deletes later steps, which a resumed run makes again."""
    if coordination.is_first():
      for later in self.steps():
        if later > step:
          (self.directory / str(later)).rmtree()
    coordination.gather(f'deleting what is later than step {step}')
    self._manager.reload()

  def read_meta(self, step: int | None = None) -> dict[str, Any] | None:
    """Returns the `meta` that was saved with a step, by default `latest()`.

    Raises:
      CheckpointError: the given step is corrupt or does not exist.
    """
    step = self.latest() if step is None else step
    if step is None:
      return None
    with self._noting(step):
      return reader.read_record(self.directory, step).meta
    raise CheckpointError(
      f'Checkpoint {self.directory / str(step)} {self._corrupt[step]}.'
    )

  def save(
    self,
    step: int,
    items: Mapping[str, Any],
    meta: Mapping[str, Any],
  ) -> bool:
    """Starts to save a step; returns once the arrays may be donated.

    A step that is on disk, and that this object has neither saved nor restored,
    is renamed to `<step>.replaced-<k>`.

    Args:
      step: number of the step.
      items: {name: tree of arrays}.
      meta: JSON values; `score` says how good the step is, see `best_policy`.

    Returns:
      Whether it is being saved; False where it had been already.

    Raises:
      CheckpointError: the previous save failed, or the disk is too full.
    """
    self.wait()
    exists = (self.directory / str(step)).exists()
    if step in self._valid and exists:
      return False
    arrays = {item: manifest.stored_arrays(x) for item, x in items.items()}
    self._check_space(step, arrays)
    if exists or self._corrupt:
      self._set_aside(step)
    self._manager.reload()
    described = {item: manifest.describe(x) for item, x in items.items()}
    record = manifest.Record(step, dict(meta), described)
    args = {'meta': ocp.args.JsonSave(manifest.seal(record))}
    for item, leaves in arrays.items():
      stored = {
        name: orbax_manager.one_copy(x) for name, x in leaves.items() if x.size
      }
      if stored:
        args[item] = ocp.args.PyTreeSave(stored)
    if self._by_score:
      self._best.note(step, record.meta)
    with self._explained(step):
      self._manager.save(step, args=ocp.args.Composite(**args), force=True)
    self._saving = step
    return True

  def check(self) -> None:
    """Raises CheckpointError if a save has failed; does not wait for one."""
    if self._saving is not None and not self._manager.is_saving_in_progress():
      self.wait()

  def wait(self) -> None:
    """Waits until the save that was started, if any, is on disk.

    Raises:
      CheckpointError: it failed.
    """
    step, self._saving = self._saving, None
    if step is not None:
      with self._explained(step):
        self._manager.wait_until_finished()
      self._valid.add(step)

  def restore(
    self, abstract: Mapping[str, Any], step: int | None = None
  ) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
    """Restores the newest valid step, or the given one.

    Args:
      abstract: {item: tree} of the items to restore, with jax.ShapeDtypeStruct
        for leaves. A leaf arrives with the sharding of its struct, whatever
        mesh it was saved from; without one, as a NumPy array. None for a tree:
        as it was saved, in nested dicts of NumPy arrays.
      step: the only step to try.

    Returns:
      The step, {item: tree} and the `meta` saved with it; None where there is
      no step at all.

    Raises:
      CheckpointMismatch: the step is valid and has other parameters, shapes or
        dtypes.
      CheckpointError: every step, or the given one, is corrupt.
    """
    self.wait()
    candidates = self.steps()[::-1] if step is None else [step]
    for candidate in candidates:
      if candidate in self._corrupt:
        continue
      with self._noting(candidate):
        record = reader.read_record(self.directory, candidate)
        reader.check_match(record, abstract)
        trees = {
          item: reader.read_item(self.directory, record, item, tree)
          for item, tree in abstract.items()
        }
        if trees.keys() == record.items.keys():
          self._valid.add(candidate)
        return candidate, trees, record.meta
    if not candidates:
      return None
    reasons = '; '.join(f'{x} {self._corrupt[x]}' for x in candidates)
    raise CheckpointError(
      f'No checkpoint in {self.directory} can be used ({reasons}): bring one'
      ' back from a copy, or start again in another workdir.'
    )

  def restore_item(
    self, name: str = 'ema', abstract: Any = None, step: int | None = None
  ) -> tuple[int, Any, dict[str, Any]] | None:
    """Restores one item, as `restore`, on a machine with any devices."""
    found = self.restore({name: abstract}, step)
    return found and (found[0], found[1][name], found[2])

  def close(self) -> None:
    """Waits for the last save; raises CheckpointError if it failed."""
    try:
      self.wait()
    finally:
      if self._manager is not None:
        self._manager.close()
        self._manager = None

  @contextlib.contextmanager
  def _noting(self, step: int) -> Iterator[None]:
    """Catches that a step is corrupt, and logs it once."""
    try:
      yield
    except reader.CorruptCheckpoint as error:
      if step not in self._corrupt:
        self._corrupt[step] = str(error)
        logging.error(
          'Checkpoint %s %s; it is skipped and left in place.',
          self.directory / str(step),
          error,
        )

  def _set_aside(self, step: int):
    """Renames corrupt steps, and the one on disk that `step` replaces."""
    if coordination.is_first():
      for old in sorted({step, *self._corrupt} & set(self.steps())):
        name = f'{old}.{"damaged" if old in self._corrupt else "replaced"}'
        paths = (self.directory / f'{name}-{k}' for k in itertools.count())
        target = next(path for path in paths if not path.exists())
        (self.directory / str(old)).rename(target)
        logging.warning('Checkpoint %d is renamed to %s.', old, target)
    coordination.gather(f'making room for step {step}')
    self._valid -= {step, *self._corrupt}
    self._corrupt.clear()

  def _check_space(self, step: int, arrays: Mapping[str, Any]):
    """Raises CheckpointError if a local disk has no room for the step."""
    needed = 2**20 + sum(x.nbytes for x in jax.tree.leaves(arrays))
    free = shutil.disk_usage(self.directory).free if self._local else math.inf
    if not coordination.all_agree('free space', free >= needed):
      raise CheckpointError(
        f'Step {step} was not saved: it takes {needed / 2**20:.0f} MiB and'
        f' {self.directory} has {free / 2**20:.0f} MiB free; make room and'
        ' run the same command again to resume.'
      )

  @contextlib.contextmanager
  def _explained(self, step: int) -> Iterator[None]:
    """Cleans up after a failed save and raises CheckpointError."""
    try:
      yield
    except Exception as error:
      with contextlib.suppress(OSError):  # What it failed of may last.
        if coordination.is_first():
          # The partial files would keep a full disk full.
          for path in orbax_manager.unfinished(self.directory):
            if path.name.partition(orbax_manager.TMP)[0] == str(step):
              path.rmtree(missing_ok=True)
        self._manager.reload()
      advice = ''
      if re.search('No space left|RESOURCE_EXHAUSTED|quota', str(error)):
        advice = ' The disk is full: make room and run the same command again.'
      raise CheckpointError(
        f'Saving step {step} in {self.directory} failed'
        f' ({reader.one_line(error)}).{advice}'
      ) from error
