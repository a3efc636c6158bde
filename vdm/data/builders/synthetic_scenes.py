"""Procedural scenes with exact truth, built on first use.

Clip i is `scenes.render(i, seed=...)`: the data set is a pure function of the
settings. The training split comes first, so that more training clips shift
the validation clips; fewer validation clips leave the others as they are.

With captions, a training scene that would show a combination which is held out
(see `synthetic.captions`) is replaced by the next free one after all clips.
"""

from collections.abc import Iterator
import itertools
from typing import Any

from ml_collections import ConfigDict
import numpy as np

from vdm.common import parallel
from vdm.common import progress
from vdm.common import sizes
from vdm.data import coding
from vdm.data.builders import build_plan
from vdm.data.synthetic import captions
from vdm.data.synthetic import scenes


def config_name(data: ConfigDict) -> str:
  """Returns the part of the directory that names the settings."""
  settings = _settings(data)
  return (
    f'{sizes.text(sizes.of(data))}px_{data.scenes.frames}f_{data.encoding}'
    f'_{build_plan.settings_hash(settings)}'
  )


def make_plan(
  data: ConfigDict, *, allow_missing: bool = False, runner: Any = None
) -> build_plan.Plan:
  """Returns how to build the data set; nothing can be missing from it."""
  del allow_missing, runner
  options = _render_options(data)
  truth = scenes.render(0, **options)['truth']
  return build_plan.Plan(
    name='synthetic_scenes',
    config_name=config_name(data),
    settings=_settings(data),
    label_names=scenes.LABEL_NAMES,
    splits=('train', 'validation'),
    shots=lambda: _shots(data, options),
    truth={
      name: (str(array.dtype), _stored_shape(array, data.scenes.frames))
      for name, array in truth.items()
    },
  )


def _shots(data: ConfigDict, options: dict) -> Iterator[build_plan.Shot]:
  train, total = data.scenes.train, data.scenes.train + data.scenes.validation
  side = min(sizes.of(data))

  def caption(number, scene):
    told = captions.attributes(scene['truth'], side)
    entropy = np.random.SeedSequence([data.scenes.seed, number], spawn_key=(2,))
    random = np.random.Generator(np.random.PCG64(entropy))
    return captions.render(told, data.scenes.ground, random)

  def render(index):
    """Returns a scene, and the number of the one that it is."""
    for number in itertools.count(index, total):
      scene = scenes.render(number, **options)
      if not data.scenes.captions or index >= train:
        return number, scene
      told = captions.attributes(scene['truth'], side)
      if not captions.is_held_out(told):
        return number, scene

  def make(index):
    number, scene = render(index)
    n, height, width, _ = scene['frames'].shape
    return build_plan.Shot(
      id=f'scene_{index:07d}',
      frames=[coding.encode_frame(f, data.encoding) for f in scene['frames']],
      n=n,
      frame_rate=data.frame_rate,
      height=height,
      width=width,
      splits=('train' if index < train else 'validation',),
      group=f'scene_{index:07d}',
      label=int(scene['label']),
      caption=caption(number, scene) if data.scenes.captions else '',
      truth={name: np.asarray(a) for name, a in scene['truth'].items()},
    )

  indices = range(train + data.scenes.validation)
  clips = parallel.ordered_map(make, indices)
  yield from progress.track(clips, len(indices), 'synthetic scenes', 'clip')


def _render_options(data: ConfigDict) -> dict:
  options = data.scenes.to_dict()
  del options['train'], options['validation']
  return options | sizes.keys(sizes.of(data))


def _settings(data: ConfigDict) -> dict:
  options = data.scenes.to_dict()
  if not options['captions']:  # So it is in data sets of before this key.
    del options['captions']
  return dict(
    **sizes.keys(sizes.of(data)),
    frame_rate=data.frame_rate,
    encoding=data.encoding,
    scenes=options,
  )


def _stored_shape(array: np.ndarray, frames: int) -> tuple[int | None, ...]:
  per_frame = array.ndim and array.shape[0] == frames
  return (None, *array.shape[1:]) if per_frame else array.shape
