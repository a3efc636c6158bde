"""Whether parameters can be of the networks that an export claims to have.

No key has an upper bound, and a network of thousands of blocks takes minutes
and gigabytes to describe. Each layer that is counted here has at least one
tensor, so that a file with fewer tensors cannot be of the network: it is not
made then.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vdm.common import sizes
from vdm.config import image_model_rules
from vdm.models import autoencoders
from vdm.models import pickles
from vdm.models.autoencoders import latents
from vdm.models.image_unets import inflated

# Of an image model that an export of branches leaves out, so that there are no
# tensors to compare with; the published ones have less than 100.
MAX_IMAGE_LAYERS = 256


def check_layers(model: ConfigDict, tensors: int, image_left_out: bool) -> None:
  """Checks that a file can hold the network of `config.model`.

  Args:
    model: `config.model`.
    tensors: number of them in the file.
    image_left_out: whether the file is without the published image model.

  Raises:
    FormatError: it asks for more layers than the file has tensors.
    DescriptionError: the description of its image model is none.
  """
  own, image = layers(model)
  most = tensors + (MAX_IMAGE_LAYERS if image_left_out else 0)
  if own > tensors or own + image > most:
    raise pickles.FormatError(
      f'it has {tensors} tensors and is of another network than its '
      f'configuration, which asks for {own + image} layers or more'
    )


def check_autoencoder(
  codec: autoencoders.Autoencoder, frozen: Mapping[str, Any], stage: ConfigDict
) -> None:
  """Traces an autoencoder over a stage's clips, without computing anything.

  Raises:
    ValueError: the latents or the clips come out in other shapes; whatever
      else the networks raise: the parameters are not theirs.
  """
  shape = (1, stage.frames, *sizes.of(stage), 3)

  def there_and_back(frozen, x):
    z, _ = codec.encode(frozen['params'], x)
    z = latents.denormalise(
      latents.normalise(z, frozen['stats']), frozen['stats']
    )
    return z, codec.decode(frozen['params'], z)

  z, x = jax.eval_shape(
    there_and_back, frozen, jax.ShapeDtypeStruct(shape, jnp.float32)
  )
  if x.shape != shape or z.shape[-1] != codec.channels:
    raise ValueError(f'clips {shape} come back as {x.shape}')


def layers(model: ConfigDict) -> tuple[int, int]:
  """Returns how many layers a network has at least.

  Args:
    model: `config.model`.

  Returns:
    (its own, those of its published image model): blocks, and what there can be
    several of after a block.

  Raises:
    DescriptionError: the description of its image model is none.
  """
  own = len(model.scalars)
  if image_model_rules.is_published(model):
    branches, image = _published(model)
    return own + branches, image
  if model.text.encoder != 'none':
    own += model.text.layers
  if model.kind == 'transformer':
    return own + model.transformer.depth, 0
  levels = len(model.widths)
  moving = set(model.temporal_levels)
  for level, blocks in enumerate(model.blocks[:levels]):
    # On the way down, and on the way up.
    own += 2 * blocks * (1 + model.temporal_depth * (level in moving))
  # In the middle.
  return own + 1 + model.temporal_depth * (levels - 1 in moving), 0


def _published(model):
  """Returns the numbers of branches, and of blocks and attention layers."""
  described = inflated.parse(model.kind, model.architecture)
  grid, moving = described.sizes, set(model.temporal_levels)
  levels = len(grid.widths)
  # Attention layers after a block that has any.
  depth = described.depth if model.kind == 'conditional' else (1,) * levels
  image = grid.middle + depth[-1] * (grid.middle > 1)
  branches = model.temporal_depth * grid.middle * (levels - 1 in moving)
  for level, down in enumerate(grid.blocks):
    up = down + 1
    image += down * (1 + depth[level] * grid.down_attention[level])
    image += up * (1 + depth[level] * grid.up_attention[level])
    branches += model.temporal_depth * (down + up) * (level in moving)
  return branches, image
