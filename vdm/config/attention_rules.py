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
    for width, attends in _levels(model):
      if attends:
        yield from _head_problems('widths', width, model.head_size)
  if model.text.encoder != 'none':
    yield from _head_problems('text.width', model.text.width, model.head_size)


def reads_text(model: ConfigDict) -> bool:
  """Returns whether a block of the U-Net attends to words.

  Those do that attend over (h w) or (t h w), and no others: see
  `vdm.models.unet_blocks.Block`.
  """
  return any(attends - {'t'} for _, attends in _levels(model))


def _levels(model: ConfigDict) -> Iterator[tuple[int, set[str]]]:
  """Yields the channels of the U-Net's levels, and what blocks attend over."""
  last = len(model.widths) - 1
  for level, (width, blocks) in enumerate(zip(model.widths, model.blocks)):
    if not blocks and level != last:
      continue
    temporal = model.temporal_depth > 0 and level in model.temporal_levels
    # The block in the middle attends jointly, whatever `joint_levels` is.
    joint = model.joint_attention and level >= min(
      last, last + 1 - model.joint_levels
    )
    over = {
      'h w': level in model.attention_levels,
      't': temporal and level in model.temporal_attention_levels,
      't h w': temporal and joint,
    }
    yield width, {axes for axes, attends in over.items() if attends}


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
