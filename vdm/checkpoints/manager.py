"""Checkpoints that are verified: Orbax's v0 `CheckpointManager`, and digests.

A step `<directory>/<step>/` holds items, each a tree of arrays (`params`,
`opt_state`, `ema`), and `meta`, one JSON file: what the caller gave, and for
each leaf of each item its dtype, shape and digest, all under a sha256. Orbax
restores flipped bits in arrays without a word, casts dtypes silently, lists
an empty folder as the latest step and has no fall-back; so every leaf that is
restored is digested again here, and a step that is not what was saved is
named, passed over and left where it is.

On disk an item is flat, {name: leaf}, with the names that
`manifest.named_leaves` gives: leaves are found by name and never by position,
keys may hold '/', optax's named tuples, empty states and None cost nothing, and
no class is stored. Leaves without elements, which Orbax refuses, are recorded
and not written.

A damaged step stays until training reaches a save again; then every damaged
step found is renamed to `<step>.damaged-<k>`, so that it neither blocks the
save nor counts as one of the steps kept. Nobody deletes those: a person may
want to look.
"""

from collections.abc import Mapping
import os
import re
import shutil
from typing import Any

from absl import logging
from etils import epath
import orbax.checkpoint as ocp

from vdm.checkpoints import best_policy
from vdm.checkpoints import manifest
from vdm.checkpoints import reader
from vdm.multihost import coordination

_TMP = '.orbax-checkpoint-tmp'


class CheckpointError(RuntimeError):
  """A save failed, or nothing that was saved can be used."""


class Checkpoints:
  """Saves and restores the steps of one directory.

  Every process of a run makes one, and calls the same methods in the same
  order. Not thread-safe.
  """

  def __init__(
    self,
    directory: epath.PathLike,
    *,
    keep: int = 2,
    keep_every: int = 0,
    read_only: bool = False,
  ):
    """Opens the directory.

    Args:
      directory: of the steps; made if need be.
      keep: latest steps kept.
      keep_every: also keep the steps divisible by this; 0: none.
      read_only: never writes, renames or deletes: for anyone who looks at a
        run that another program may be training.
    """
    self.directory = epath.Path(directory)
    if '://' not in os.fspath(directory):
      self.directory = self.directory.resolve()  # Orbax wants it absolute.
    self._best = best_policy.Best()
    self._note_scores()
    self._manager = (
      None
      if read_only
      else _manager(self.directory, keep, keep_every, self._best)
    )
    self._saving = None  # The step that is being written.
    self._sound = set()  # Steps saved, or restored whole, here.
    self._damaged = {}  # {step: reason}

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self.close()

  def steps(self) -> list[int]:
    """Returns the steps on disk, damaged ones too, in rising order."""
    if not self.directory.exists():
      return []
    return sorted(
      int(step) for step in ocp.utils.checkpoint_steps(self.directory)
    )

  def latest(self) -> int | None:
    """Returns the newest step that looks sound; `restore` reads its arrays."""
    for step in reversed(self.steps()):
      if step in self._damaged or step == self._saving:
        continue
      try:
        reader.read_record(self.directory, step)
        return step
      except reader.Damage as damage:
        self._note(step, damage)
    return None

  def best(self) -> int | None:
    """Returns the step with the least score; None where none has one."""
    return self._best.step(self.steps())

  def read_meta(self, step: int | None = None) -> dict[str, Any] | None:
    """Returns the `meta` that was saved with a step, by default `latest()`.

    Raises:
      CheckpointError: the step given is damaged or does not exist.
    """
    step = self.latest() if step is None else step
    if step is None:
      return None
    try:
      return reader.read_record(self.directory, step).meta
    except reader.Damage as damage:
      self._note(step, damage)
      raise CheckpointError(
        f'Checkpoint {self.directory / str(step)} {damage}.'
      ) from damage

  def save(
    self,
    step: int,
    items: Mapping[str, Any],
    meta: Mapping[str, Any],
    *,
    force: bool = False,
  ) -> bool:
    """Begins to save a step; returns once the arrays may be donated.

    Args:
      step: number of the step.
      items: {name: tree of arrays}.
      meta: JSON values. The step with the least `score` is kept beside the
        latest ones; see `best.py`.
      force: save even where this object has saved or restored `step`; what lies
        there is then renamed to `<step>.replaced-<k>`.

    Returns:
      Whether it is being saved; False where it had been already.

    Raises:
      CheckpointError: the save before failed, or the disk is too full.
    """
    self.wait()
    exists = (self.directory / str(step)).exists()
    if step in self._sound and exists and not force:
      return False
    leaves = {name: manifest.storable(tree) for name, tree in items.items()}
    self._check_space(step, leaves)
    self._set_aside(step)
    record = manifest.Record(
      step, dict(meta), {k: manifest.describe(v) for k, v in leaves.items()}
    )
    arrays = {
      item: {n: x for n, (_, x) in named.items() if x.size}
      for item, named in leaves.items()
    }
    args = {k: ocp.args.PyTreeSave(v) for k, v in arrays.items() if v}
    sealed = manifest.seal(record)
    self._best.note(step, record.meta)
    try:
      self._manager.save(
        step,
        args=ocp.args.Composite(meta=ocp.args.JsonSave(sealed), **args),
        force=True,
      )
    except Exception as error:
      self._failed(step, error)
    self._saving = step
    return True

  def check(self):
    """Raises CheckpointError if a save has failed; does not wait for one."""
    if self._saving is not None and not self._manager.is_saving_in_progress():
      self.wait()

  def wait(self):
    """Waits until the save that was begun, if any, is on disk.

    Raises:
      CheckpointError: it failed.
    """
    if self._saving is None:
      return
    step = self._saving
    try:
      self._manager.wait_until_finished()
    except Exception as error:
      self._saving = None
      self._failed(step, error)
    self._saving = None
    self._sound.add(step)

  def restore(
    self, abstract: Mapping[str, Any], step: int | None = None
  ) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
    """Restores the newest sound step, or the one given.

    Args:
      abstract: {item: tree} of what is wanted, with jax.ShapeDtypeStruct for
        leaves. A leaf arrives with the sharding of its struct, whatever mesh
        it was saved from; without one, as a NumPy array.
      step: this step or none.

    Returns:
      The step, {item: tree} and the `meta` saved with it, or None where there
      is no step at all.

    Raises:
      CheckpointMismatch: the step is sound and holds other parameters, shapes
        or dtypes.
      CheckpointError: every step, or the one given, is damaged.
    """
    self.wait()
    return self._restore(
      lambda record: manifest.match(record, abstract),
      manifest.rebuilder(abstract),
      step,
    )

  def restore_item(
    self, name: str = 'ema', abstract: Any = None, step: int | None = None
  ) -> tuple[int, Any, dict[str, Any]] | None:
    """Restores one item, as `restore`, on a machine with any devices.

    Without `abstract` the tree comes as it was saved, in nested dicts of NumPy
    arrays.
    """
    self.wait()
    if abstract is None:

      def wanted(record):
        if name not in record.items:
          raise manifest.CheckpointMismatch(
            f'The checkpoint has no {name!r}, only {sorted(record.items)}.'
          )
        return {name: dict.fromkeys(record.items[name])}

      found = self._restore(
        wanted, lambda items: {name: manifest.nested(items[name])}, step
      )
    else:
      found = self.restore({name: abstract}, step)
    return found and (found[0], found[1][name], found[2])

  def close(self):
    """Waits for the last save; raises CheckpointError if it failed."""
    try:
      self.wait()
    finally:
      if self._manager is not None:
        self._manager.close()
        self._manager = None

  def _restore(self, wanted, rebuild, step):
    """Walks back to a sound step; see `restore`.

    Args:
      wanted: from a step's record to {item: {name: target or None}}.
      rebuild: from {item: {name: leaf}} to {item: tree}.
      step: the only one to try, or None.
    """
    candidates = [step] if step is not None else self.steps()[::-1]
    for candidate in candidates:
      try:
        if candidate in self._damaged:
          raise reader.Damage(self._damaged[candidate])
        record = reader.read_record(self.directory, candidate)
        targets = wanted(record)
        leaves = {
          item: reader.read_item(self.directory, record, item, named)
          for item, named in targets.items()
        }
      except reader.Damage as damage:
        self._note(candidate, damage)
        continue
      if targets.keys() == record.items.keys():
        self._sound.add(candidate)
      return candidate, rebuild(leaves), record.meta
    if not candidates:
      return None
    reasons = '; '.join(f'{s} {self._damaged[s]}' for s in candidates)
    raise CheckpointError(
      f'No checkpoint in {self.directory} can be used ({reasons}): bring one'
      ' back from a copy, or start again in another workdir.'
    )

  def _note_scores(self):
    """Reads the scores of the steps on disk, but not of damaged ones."""
    for step in self.steps():
      try:
        record = reader.read_record(self.directory, step)
      except reader.Damage:
        continue  # Named by whoever wants the step.
      self._best.note(step, record.meta)

  def _note(self, step: int, damage: reader.Damage):
    """Logs a damaged step, once."""
    if step not in self._damaged:
      self._damaged[step] = str(damage)
      logging.error(
        'Checkpoint %s %s; it is passed over and left as it is.',
        self.directory / str(step),
        damage,
      )

  def _set_aside(self, step: int):
    """Renames damaged steps, and what lies where `step` goes."""
    self._manager.reload()
    present = set(self._manager.all_steps())
    aside = sorted(present & (set(self._damaged) | {step}))
    if not aside:
      return
    if coordination.is_first():
      for old in aside:
        kind = 'damaged' if old in self._damaged else 'replaced'
        k = 0
        while (self.directory / f'{old}.{kind}-{k}').exists():
          k += 1
        target = self.directory / f'{old}.{kind}-{k}'
        (self.directory / str(old)).rename(target)
        logging.warning('Checkpoint %d is set aside as %s.', old, target)
    coordination.gather(f'making way for step {step}')
    self._sound.difference_update(aside)
    for old in aside:
      self._damaged.pop(old, None)
    self._manager.reload()

  def _check_space(self, step: int, leaves: Mapping[str, Any]):
    """Raises CheckpointError if a local disk cannot hold the step."""
    needed = 2**20 + sum(
      x.nbytes for named in leaves.values() for _, x in named.values()
    )
    free = needed
    if '://' not in os.fspath(self.directory):
      free = shutil.disk_usage(self.directory).free
    if not coordination.all_agree('free space', free >= needed):
      raise CheckpointError(
        f'Step {step} was not saved: it takes {needed / 2**20:.0f} MiB and'
        f' {self.directory} has {free / 2**20:.0f} MiB free; make room and'
        ' start again.'
      )

  def _failed(self, step: int, error: Exception):
    """Tidies up after a failed save and raises one sentence."""
    if coordination.is_first():
      # What was written would keep a full disk full.
      for path in self.directory.glob(f'{step}{_TMP}*'):
        path.rmtree(missing_ok=True)
    self._manager.reload()
    reason, advice = reader.line(error), ''
    if re.search('No space left|RESOURCE_EXHAUSTED|quota', str(error)):
      advice = ' The disk is full: make room and run the same command again.'
    raise CheckpointError(
      f'Saving step {step} in {self.directory} failed ({reason}).{advice}'
    ) from error


def _manager(directory, keep, keep_every, best) -> ocp.CheckpointManager:
  """Returns Orbax's manager, which decides nothing but what to delete."""
  policies = [ocp.checkpoint_managers.LatestN(keep), best]
  if keep_every:
    policies.append(ocp.checkpoint_managers.EveryNSteps(keep_every))
  for path in sorted(directory.glob(f'*{_TMP}*')) if directory.exists() else ():
    logging.warning('%s is a save that was cut off; it is removed.', path)
  return ocp.CheckpointManager(
    directory,
    options=ocp.CheckpointManagerOptions(
      preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(
        policies
      ),
      cleanup_tmp_directories=True,
      lightweight_initialize=True,  # A damaged step must not stop us here.
    ),
  )
