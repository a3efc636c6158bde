"""Runs whose configurations differ in the seed alone, and in what groups do."""

from collections.abc import Iterable, Mapping, Sequence
import math
import re
from typing import Any, NamedTuple

from vdm.config import serialize
from vdm.reporting import run_numbers
from vdm.reporting import run_record
from vdm.training import autoencoder_keys

SEED = 'seed'
# Where files are, and how a run is logged and kept: no number depends on them.
_NEUTRAL = re.compile(
  r'log\.|data\.(root|source|follow_links|max_bad_records|threads|workers)$'
  r'|data\.limits\.|autoencoder\.weights$'
  r'|train\.(log_every|eval_every|preview_every|save_every|save_minutes|keep'
  r'|keep_every|max_skipped|peer_seconds|barrier_minutes|tensorboard|fsdp)$'
)
_SETS = (  # Which clips numbers are of.
  r'data\.(name|resolution|width|frame_rate|stride|fixed_clips|split_list)$'
  r'|data\.scenes\.(?!train$)|stages\.\w+\.(resolution|width|frames)$'
)
# What numbers mean: two of them with other values are no comparison.
_MEANINGS = (
  (r'(final|card)/', rf'{_SETS}|sample\.final$'),
  (r'final/enlargement/', r'model\.low\.(space|time)_factor$'),
  (r'final/given/', r'autoencoder\.time_factor$'),
  (r'log/small_score/', rf'{_SETS}|score\.num$'),
  (r'log/val_psnr|autoencoder/', rf'{_SETS}|train\.eval_clips$'),
  (
    r'log/(val_)?loss',
    rf'{_SETS}|train\.eval_clips$|data\.|autoencoder\.|diffusion\.(schedule'
    r'|logsnr_\w+|shift_base|prediction|weighting|sigma_data|eval_levels'
    r'|sample_posterior)$|tokens\.eval_shares$|model\.transformer\.vocabulary$',
  ),
  (
    r'log/loss',
    r'diffusion\.|tokens\.label_smoothing$'
    r'|model\.(label_dropout|scalar_dropout|dropout|text\.dropout)$'
    r'|stages\.\w+\.(image_fraction|images|frame_levels\.\w+|crop|zoom|frozen)$',
  ),
)


class Group(NamedTuple):
  """Runs of one configuration.

  Attributes:
    name: 'A', 'B' and so on.
    values: {key: value} of the keys in which groups differ.
    records: the runs, by rising seed.
  """

  name: str
  values: dict[str, Any]
  records: list[run_record.Record]

  @property
  def seeds(self) -> list[int]:
    """The runs' seeds."""
    return [record.config.seed for record in self.records]

  @property
  def title(self) -> str:
    """The group in words."""
    words = ', '.join(f'{k}={v}' for k, v in self.values.items())
    return f'{self.name}: {words}' if words else self.name


def make(records: Sequence[run_record.Record]) -> list[Group]:
  """Groups runs, in the order in which their configurations first appear."""
  members = {}
  for record in records:
    values = _values(record)
    members.setdefault(tuple(sorted(values.items())), []).append(record)
  keys = sorted({key for values in members for key, _ in values})
  tables = [dict(values) for values in members]
  differ = [
    key for key in keys if len({table.get(key) for table in tables}) > 1
  ]
  return [
    Group(
      _letters(i),
      {key: table.get(key, 'no such key') for key in differ},
      sorted(found, key=lambda record: record.config.seed),
    )
    for i, (table, found) in enumerate(zip(tables, members.values()))
  ]


def is_neutral(key: str) -> bool:
  """Returns whether no number depends on a key."""
  return _NEUTRAL.match(key) is not None


def neutral_differences(
  records: Iterable[run_record.Record],
) -> dict[str, list[str]]:
  """Returns {key: its values} of keys that differ and change no number."""
  found = {}
  for record in records:
    for key, value in serialize.flatten(record.config).items():
      if _NEUTRAL.match(key):
        found.setdefault(key, {})[str(value)] = None
  return {key: list(values) for key, values in found.items() if len(values) > 1}


def obstacle(first: Group, second: Group, name: str) -> str:
  """Returns why a number of two groups means two things, or ''.

  Args:
    first: a group.
    second: another one.
    name: of the number.
  """
  keys = [k for k in first.values if first.values[k] != second.values[k]]
  for names, meaning in _MEANINGS:
    if re.match(names, name):
      for key in keys:
        if re.match(meaning, key):
          return key
  if re.match(r'log/(val_)?loss', name):
    # A loss is of latents, and these are of the autoencoder.
    config = first.records[0].config
    shared = {r.autoencoder for g in (first, second) for r in g.records}
    if len(shared) > 1 and autoencoder_keys.trains_own(config):
      for key in keys:
        if autoencoder_keys.enters(key, config):
          return f'{key}, which the autoencoder depends on'
  return ''


def default_primary(record: run_record.Record) -> str:
  """Returns the number that decides unless another one is named.

  It depends on the data set alone, so that it is known before any number is.
  """
  data = record.config.data
  if data.name != 'synthetic_scenes':
    return 'log/val_loss@steps'
  if data.scenes.objects == 1:
    return 'final/truth/label_agreement'
  return 'final/laws/tracked'


def numbers(
  group: Group, budgets: dict[str, float]
) -> dict[int, dict[str, float]]:
  """Returns {seed: {name: number}} of a group's runs, finite numbers only.

  Runs of one seed count as one: their numbers are averaged.
  """
  return finite(measured(group, budgets))


def finite(
  values: Mapping[int, Mapping[str, float]],
) -> dict[int, dict[str, float]]:
  """Returns {seed: {name: number}} without NaN and infinity."""
  return {
    seed: {name: x for name, x in found.items() if math.isfinite(x)}
    for seed, found in values.items()
  }


def measured(
  group: Group, budgets: dict[str, float]
) -> dict[int, dict[str, float]]:
  """Returns what `numbers` does, with NaN and infinity of runs that diverge."""
  found = {}
  for record in group.records:
    values = run_numbers.of_files(record) | run_numbers.of_costs(record)
    values |= run_numbers.of_logs(record, budgets)
    found.setdefault(record.config.seed, []).append(values)
  return {seed: _mean(runs) for seed, runs in found.items()}


def _mean(runs: Sequence[dict[str, float]]) -> dict[str, float]:
  names = set.intersection(*(set(values) for values in runs))
  return {
    name: sum(values[name] for values in runs) / len(runs)
    for name in sorted(names)
  }


def _values(record) -> dict[str, Any]:
  values = {
    key: value
    for key, value in serialize.flatten(record.config).items()
    if key != SEED and not _NEUTRAL.match(key)
  }
  # Where a cache is changes nothing; that there is one rounds the latents.
  values['data.latents'] = bool(values['data.latents'])
  return values


def _letters(i: int) -> str:
  """Returns A to Z, then AA, AB and so on."""
  letter = chr(ord('A') + i % 26)
  return letter if i < 26 else _letters(i // 26 - 1) + letter
