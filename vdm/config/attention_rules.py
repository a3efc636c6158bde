"""Rules of attention: every width that attends has to divide into its heads.

As in `rules`, each problem is one sentence. A published image model has heads
of its own, and the widths of its temporal branches follow from its description.
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from vdm.config import image_model_rules


def problems(model: ConfigDict) -> Iterator[str]:
  """Yields what is wrong in `config.model`, one sentence per problem."""
  if image_model_rules.is_published(model):
    return
  if model.kind == 'transformer':
    yield from _head_problems(
      'transformer.width', model.transformer.width, model.head_size
    )
  else:
    for width in _attending_widths(model):
      yield from _head_problems('widths', width, model.head_size)
  if model.text.encoder != 'none':
    yield from _head_problems('text.width', model.text.width, model.head_size)


def _attending_widths(model: ConfigDict) -> list[int]:
  """Returns the channels of the U-Net's levels that have attention."""
  last = len(model.widths) - 1
  found = []
  for level, (width, blocks) in enumerate(zip(model.widths, model.blocks)):
    temporal = model.temporal_depth > 0 and level in model.temporal_levels
    # The block in the middle attends jointly, whatever `joint_levels` is.
    joint = model.joint_attention and level >= min(
      last, last + 1 - model.joint_levels
    )
    attends = level in model.attention_levels or (
      temporal and (level in model.temporal_attention_levels or joint)
    )
    if attends and (blocks or level == last):
      found.append(width)
  return found


def _head_problems(key: str, width: int, head_size: int) -> Iterator[str]:
  """Yields why so many channels make no heads of `head_size`, about.

  Args:
    key: of the channels, in `config.model`.
    width: number of channels.
    head_size: `config.model.head_size`.
  """
  heads = max(1, width // head_size)
  size = width // heads
  # Rotary positions turn pairs of channels.
  if heads * size == width and size % 2 == 0:
    return
  made = (
    f'config.model.{key} has {width} channels, of which config.model.head_size='
    f'{head_size} makes {heads} heads of {size}'
  )
  if width % 2:
    yield f'{made}, and those are pairs: make it even, such as {width + 1}.'
    return
  sizes = [n for n in range(2, width + 1, 2) if width % n == 0]
  nearest = min(sizes, key=lambda n: abs(n - head_size))
  yield (
    f'{made}: take an even head_size that divides {width}, such as {nearest}.'
  )
