"""What a sweep runs: commands with folders, and what they share."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from vdm.common import buckets
from vdm.common import errors
from vdm.config import flag
from vdm.config import schema
from vdm.config import serialize
from vdm.data import latent_cache
from vdm.reporting import groups
from vdm.reporting import run_record
from vdm.sweeping import variations
from vdm.training import autoencoder_keys

SHARED = 'shared'  # The folder of the autoencoder that all runs work in.
# What a run fills in by itself, see `autoencoder_stage.resolve`.
_RESOLVED = ('weights_sha256', 'norm_groups', 'scaling_factor', 'shift_factor')


class Run(NamedTuple):
  """One command.

  Attributes:
    title: what it is.
    folder: its workdir.
    arguments: of vdm.main.
    config: that it trains.
  """

  title: str
  folder: epath.Path
  arguments: list[str]
  config: ConfigDict


class Plan(NamedTuple):
  """All commands of a sweep.

  Attributes:
    workdir: of the sweep.
    shared: trains the autoencoder that the runs share, if they do.
    latents: arguments of vdm.prepare that write their latent cache, or [].
    latents_folder: of the cache, if there is one.
    runs: the others, by value and seed; the baseline's first.
    notes: sentences that a person has to know.
  """

  workdir: epath.Path
  shared: Run | None
  latents: list[str]
  latents_folder: str
  runs: list[Run]
  notes: list[str]


def make(
  path: str,
  base: ConfigDict,
  overrides: dict[str, Any],
  vary: Sequence[variations.Variation],
  seeds: Sequence[int],
  workdir: epath.PathLike,
  *,
  grid: bool = False,
  alone: bool = False,
  share: bool = True,
) -> Plan:
  """Plans a sweep; every configuration is checked.

  Args:
    path: of the configuration file, with its variant.
    base: the file's configuration, with the overrides.
    overrides: {key: value} that the command line gave.
    vary: keys and values.
    seeds: of the runs, for each value.
    workdir: of the sweep.
    grid: all combinations of several keys.
    alone: several keys, one at a time.
    share: train the autoencoder once, where the keys do not enter it.

  Raises:
    UsageError: something cannot run; nothing has run by then.
  """
  if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
    raise errors.UsageError(
      '--seeds takes different numbers of at least 0, as in --seeds 0,1,2.'
    )
  workdir = buckets.given(workdir, '--workdir')
  found = variations.combinations(vary, grid=grid, alone=alone)
  keys = [variation.key for variation in vary]
  for key in keys:
    overrides = {k: v for k, v in overrides.items() if k != key}
  shared, common, notes = _share(
    path, base, overrides, keys, seeds, workdir, share
  )
  notes += _advice(keys if grid else [], len(found), seeds)
  latents = _latents(path, base, overrides, keys, workdir, shared)
  runs = []
  for name, values in found:
    for seed in seeds:
      changes = common | values | {'seed': seed}
      config = variations.apply(base, changes)
      folder = workdir / 'runs' / variations.folder_name(name) / f'seed_{seed}'
      runs.append(
        Run(
          f'{name}, seed {seed}',
          folder,
          _arguments(path, overrides | changes, folder),
          config,
        )
      )
  if len({str(run.folder) for run in runs}) < len(runs):
    raise errors.UsageError(
      'Two values of --vary give one name of a folder: name others.'
    )
  return Plan(
    workdir, shared, latents, base.data.latents if latents else '', runs, notes
  )


def is_done(run: Run) -> bool:
  """Returns whether a run is finished, and is the one that is planned.

  Raises:
    UsageError: the folder holds a run of another configuration.
  """
  if not run_record.is_run(run.folder):
    return False
  old = schema.complete(serialize.load(run.folder / run_record.CONFIG))
  differs = [
    line
    for line in serialize.diff(old, run.config)
    if not groups.is_neutral(key := line.split(':')[0])
    and key not in [f'autoencoder.{name}' for name in _RESOLVED]
  ]
  if differs:
    raise errors.UsageError(
      f'{run.folder} holds a run of another configuration '
      f'({"; ".join(differs[:3])}): give another --workdir.'
    )
  return run_record.read(run.folder).is_finished


def _share(
  path, base, overrides, keys, seeds, workdir, share
) -> tuple[Run | None, dict[str, Any], list[str]]:
  """Returns (run, changes to all others, notes) about the autoencoder."""
  own = autoencoder_keys.stages_of(base)
  others = [name for name in base.train.order if name not in own]
  if not own or base.autoencoder.load or not others:
    return None, {}, []
  entering = [
    key
    for key in keys
    if key == 'train.order' or autoencoder_keys.enters(key, base)
  ]
  if entering:
    return (
      None,
      {},
      [
        f'{", ".join(entering)} also changes the autoencoder: every run trains '
        'its own. For one that all share, train it before and pass '
        '--config.autoencoder.load=RUN.'
      ],
    )
  if not share:
    return None, {}, ['Every run trains an autoencoder of its own (--noshare).']
  folder = workdir / SHARED
  changes = {'train.order': tuple(own), 'seed': seeds[0]}
  run = Run(
    f'the autoencoder, seed {seeds[0]}',
    folder,
    _arguments(path, overrides | changes, folder),
    variations.apply(base, changes),
  )
  common = {'train.order': tuple(others), 'autoencoder.load': str(folder)}
  note = (
    f'All runs share one autoencoder, that of seed {seeds[0]}: how much it '
    'varies between seeds is not seen (--noshare for one each).'
  )
  return run, common, [note]


def _latents(path, base, overrides, keys, workdir, shared) -> list[str]:
  """Returns the arguments that write the latent cache, if there is one."""
  if not base.data.latents:
    return []
  trains = autoencoder_keys.trains_own(base) and not base.autoencoder.load
  entering = [key for key in keys if autoencoder_keys.enters(key, base)]
  if entering or (trains and shared is None):
    raise errors.UsageError(
      f'config.data.latents={base.data.latents} holds latents of one '
      'autoencoder, and every run would have its own: set '
      '--config.data.latents= to nothing, or vary another key.'
    )
  return ['latents', *_arguments(path, overrides, workdir / SHARED)]


def latents_are_there(plan: Plan) -> bool:
  """Returns whether the latent cache of a sweep is complete."""
  return (epath.Path(plan.latents_folder) / latent_cache.DONE).exists()


def _advice(keys, count, seeds) -> list[str]:
  lines = []
  if len(keys) > 1:
    lines.append(
      f'A grid over {", ".join(keys)}: {count} configurations that differ in '
      'several keys. What one key does alone, only those that differ in it '
      'show.'
    )
  if len(seeds) == 1:
    lines.append(
      'With one seed no verdict is possible: what a seed changes is not known.'
    )
  return lines


def _arguments(path, changes, folder) -> list[str]:
  words = [flag.as_argument(key, value) for key, value in changes.items()]
  return [f'--config={path}', *words, f'--workdir={folder}']
