"""Chooses and reads the real clips that samples are compared with.

A key, a dict of JSON values, says which clips they are; measurements of them
are cached under it.
"""

import dataclasses
import itertools
from typing import Any

from absl import logging
from etils.array_types import IntArray, ui8
from ml_collections import ConfigDict
import numpy as np

from vdm.common import sizes
from vdm.common import vocabulary
from vdm.data import builders
from vdm.data import clip_spec
from vdm.data import eval_clips
from vdm.data import windowing
from vdm.metrics import suite
from vdm.preparation import datasets
from vdm.sampling import enlarged
from vdm.training import inputs


def held_out(run: Any, real: 'RealClips', num: int) -> dict[str, np.ndarray]:
  """Returns clips as the run's previews show them, with their smaller versions.

  They are training clips where those are fixed.

  Args:
    run: a `trained.Model`.
    real: of its data set and stage.
    num: number of clips; fewer where there are no more.
  """
  fixed = run.config.data.fixed_clips
  split = 'train' if fixed else 'validation'
  scalars = inputs.scalars_of(run.config.model, run.stage)
  clips = real.same(split, fixed or num, run.reader, scalars)
  return enlarged.with_small(run.config.model, clips)


class RealClips:
  """The clips that a data set offers to a stage."""

  def __init__(self, data: ConfigDict, stage: ConfigDict):
    """Takes `config.data` and the config of the stage."""
    self._data, self._stage = data, stage
    self._directory = datasets.ensure(data)
    self._splits = {}

  def split(self, name: str) -> tuple[builders.ClipSource, windowing.Windows]:
    """Returns a split's source and its windows."""
    if name not in self._splits:
      source = builders.open_source(
        self._directory, name, self._data.split_list
      )
      spec = clip_spec.ClipSpec(
        frames=self._stage.frames,
        stride=self._data.stride,
        **sizes.keys(sizes.of(self._stage)),
        max_bad=self._data.max_bad_records,
      )
      self._splits[name] = source, windowing.find_windows(source, spec)
    return self._splits[name]

  def same(
    self,
    name: str,
    num: int,
    texts: vocabulary.Reader | None = None,
    scalars: tuple[str, ...] = (),
  ) -> dict[str, np.ndarray]:
    """Returns the same clips of a split every time, see `eval_clips`.

    Args:
      name: of the split.
      num: number of clips.
      texts: reads their captions; None: these are not returned.
      scalars: names of the numbers that are returned, see `data.scalars`.
    """
    source, windows = self.split(name)
    spec = dataclasses.replace(windows.spec, scalars=scalars)
    return eval_clips.load_clips(source, spec, num, texts=texts)

  def choose(
    self, num: int, split: str, sampling: str, seed: int
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the keys of a reference and of as many other clips, the floor.

    The floor is from other videos of the split, or from the other split where
    there are too few.

    Args:
      num: clips of each.
      split: of the reference.
      sampling: see `windowing.sampled_order`.
      seed: see `windowing.sampled_order`.
    """
    source, windows = self.split(split)
    key = {
      'dataset': source.info['name'],
      'fingerprint': source.info['fingerprint'],
      'split': split,
      'sampling': sampling,
      'seed': seed,
      'clips': [0, num],
      'frames': self._stage.frames,
      'stride': self._data.stride,
      **sizes.keys(sizes.of(self._stage)),
      'suite': suite.VERSION,
    }
    if len(windows) >= 2 * num:
      return key, {**key, 'clips': [num, 2 * num]}
    other = 'train' if split == 'validation' else 'validation'
    logging.info(
      '%s has %d videos, too few for %d clips and as many others: the floor '
      'is of %s clips.',
      split,
      len(windows),
      num,
      other,
    )
    return key, {**key, 'split': other}

  def read(
    self, key: dict[str, Any]
  ) -> tuple[ui8['n t h w 3'], list[str], IntArray[' n']]:
    """Returns the clips of a key, their videos' names and their labels."""
    source, windows = self.split(key['split'])
    order = windowing.sampled_order(windows, key['sampling'], key['seed'])
    clips, entries = [], []
    for shot, _, clip in eval_clips.read_clips(
      source, windows, itertools.islice(order, *key['clips'])
    ):
      clips.append(clip)
      entries.append(windows.entries[windows.bounds[shot]])
    names = np.asarray(source.index['shot'])[entries]
    groups = [f'{key["split"]}/{name}' for name in names]
    return np.stack(clips), groups, np.asarray(source.index['label'])[entries]

  def captions(self, key: dict[str, Any]) -> list[str]:
    """Returns the captions of the clips of a key, if all could be read."""
    source, windows = self.split(key['split'])
    order = windowing.sampled_order(windows, key['sampling'], key['seed'])
    return [
      str(source.index['caption'][windows.entries[windows.bounds[shot]]])
      for shot, _ in itertools.islice(order, *key['clips'])
    ]
