"""Rules between the sizes of what is stored, of stages and of networks."""

from collections.abc import Iterator

from ml_collections import ConfigDict

from vdm.common import sizes


def problems(config: ConfigDict, name: str) -> Iterator[str]:
  """Yields what is wrong with the size of a stage, one sentence each."""
  stage, data = config.stages[name], config.data
  prefix = f'config.stages.{name}'
  stored, size = sizes.of(data), sizes.of(stage)
  if data.width not in (0, data.resolution) and not stage.width:
    yield (
      f'{prefix}.width=0 makes squares of frames that are stored as '
      f'{sizes.text(stored)} px: set it to '
      f'{round(size[0] * stored[1] / stored[0])} to keep their shape, or to '
      f'{size[0]} for squares cut from the middle.'
    )
  keys = ('resolution', 'width') if stage.width else ('resolution',)
  for key, here, there in zip(keys, size, stored):
    if here > there:
      yield (
        f'{prefix}.{key}={here} is above config.data.{key}={there}, which is '
        'what is stored.'
      )
  for key, value in zip(keys, size):
    if stage.crop > value:
      yield f'{prefix}.crop={stage.crop} is above {key}={value}.'
  if data.name == 'synthetic_scenes' and (
    size[0] * stored[1] != size[1] * stored[0]
  ):
    yield (
      f'{prefix} has clips of {sizes.text(size)} px and config.data scenes of '
      f'{sizes.text(stored)}: give them one shape, since what is cut off hides '
      'objects and walls whose laws are measured.'
    )
  times = sizes.magnification(stored, size)
  if stage.zoom[1] > max(times, 1):
    yield (
      f'{prefix}.zoom={stage.zoom} enlarges: config.data.resolution='
      f'{sizes.text(stored)} is {times:g} times resolution={sizes.text(size)}.'
    )
  yield from _division_problems(config, name)


def _division_problems(config: ConfigDict, name: str) -> Iterator[str]:
  stage, prefix = config.stages[name], f'config.stages.{name}'
  factor = 1
  if config.autoencoder.kind != 'identity':
    factor = config.autoencoder.factor
  halvings = 0
  if stage.objective not in ('autoencoder', 'tokens'):
    halvings = len(config.model.widths) - 1
  for key in ('resolution', 'width', 'crop'):
    if stage[key] % (factor * 2**halvings):
      halves = f' and the U-Net halves it {halvings} times' if halvings else ''
      yield (
        f'{prefix}.{key}={stage[key]} is not divisible by '
        f'{factor * 2**halvings}: the autoencoder divides it by {factor}'
        f'{halves}.'
      )
