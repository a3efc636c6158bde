"""A published image model and temporal branches: a video model.

The image model's parameters are under `image/`, those of the branches and of
their own embeddings of level and label under `temporal/`. After every block of
the image model comes a branch, as in `unet_blocks`: a convolution over t,
attention over t, and attention over (t h w) at the end of the way down or on
the coarsest levels. All of them start at zero, and single frames skip them: a
stage that freezes `image/` leaves the image model what it is (Blattmann et al.,
2304.08818; Guo et al., 2307.04725).

An image model that attends to text has been trained with an encoded empty
prompt where there was none. Its tokens are `null_text`: they go wherever the
parameters go and no step trains them. A row without any token gets them.
"""

from collections.abc import Mapping, Sequence
import re
from typing import Any

from etils.array_types import Array, FloatArray
from flax import nnx
import jax
import jax.numpy as jnp

from vdm.common import trees
from vdm.config import image_model_rules
from vdm.models import embedding
from vdm.models import unet_blocks
from vdm.models.image_unets import adm
from vdm.models.image_unets import conditional
from vdm.models.image_unets import description
from vdm.models.image_unets import layout
from vdm.models.image_unets import skeleton
from vdm.models.image_unets import timesteps
from vdm.models.image_unets import transformer

# The modules by `config.model.kind`.
FAMILIES = {'adm': adm, 'conditional': conditional}
# The keys of `config.model` that the network takes.
OPTIONS = (
  'kind',
  'architecture',
  'num_classes',
  'temporal_levels',
  'temporal_attention_levels',
  'temporal_depth',
  'joint_attention',
  'joint_levels',
  'head_size',
  'attention',
  'embed_width',
  'scalars',
  'dropout',
  'remat',
)
NULL_TEXT = image_model_rules.NULL_TEXT_PATH
GROUP = 'image'  # Of the image model's parameters,
IMAGE = f'^{GROUP}/'  # and the pattern of their paths.


def parse(
  kind: str, architecture: str
) -> adm.Description | conditional.Description:
  """Returns what `config.model.architecture` means.

  Raises:
    DescriptionError: it is not a description of this family.
  """
  return FAMILIES[kind].parse(description.from_text(architecture))


def stored(
  params: dict[str, Any], patterns: Sequence[str], dtype: Any
) -> dict[str, Any]:
  """Returns parameters with those that never change as they are stored.

  Their matrices are in the dtype of the computation, which would round them
  anyway; vectors, which it may use in float32, are not.

  Args:
    params: nested dict of arrays.
    patterns: of the paths of those that never change.
    dtype: of the computation.
  """

  def stored_leaf(path, x):
    kept = any(re.search(pattern, path) for pattern in patterns)
    return x.astype(dtype) if kept and x.ndim > 1 else x

  flat = trees.flatten(params)
  return trees.unflatten({k: stored_leaf(k, x) for k, x in flat.items()})


class Temporal(embedding.Embedding):
  """The branches, each called after the block that it is named for."""

  def __init__(
    self,
    sizes: layout.Sizes,
    *,
    temporal_levels: tuple[int, ...],
    temporal_attention_levels: tuple[int, ...],
    temporal_depth: int,
    joint_attention: bool,
    joint_levels: int,
    heads: Mapping[str, Any],
    embed_width: int,
    num_classes: int,
    scalars: Sequence[str],
    rngs: nnx.Rngs,
  ):
    super().__init__(embed_width, num_classes, scalars, 'embed_', rngs=rngs)
    blocks = [place for place in layout.places(sizes) if place.is_block]
    deepest = [place.name for place in blocks if place.part != 'up'][-1]
    width = dict(embed_width=embed_width, rngs=rngs)
    names = {}
    for place in blocks:
      if place.level not in temporal_levels:
        continue
      branches = {}
      for i in range(temporal_depth):
        branches[f'conv_{i}'] = unet_blocks.TemporalConvolution(
          place.cout, **width
        )
        if place.level in temporal_attention_levels:
          branches[f'attention_{i}'] = unet_blocks.TemporalAttention(
            place.cout, heads=heads, joint=False, **width
          )
      coarse = place.level >= len(sizes.widths) - joint_levels
      if joint_attention and (coarse or place.name == deepest):
        branches['joint'] = unet_blocks.TemporalAttention(
          place.cout, heads=heads, joint=True, **width
        )
      names[place.name] = tuple(f'{place.name}_{name}' for name in branches)
      for name, branch in branches.items():
        setattr(self, f'{place.name}_{name}', branch)
    self.branches = tuple(names.items())

  def __call__(
    self, name: str, x: FloatArray['b t h w c'], told: FloatArray['b t e']
  ) -> FloatArray['b t h w c']:
    """Applies the branches after a block."""
    for branch in dict(self.branches).get(name, ()):
      x = getattr(self, branch)(x, told)
    return x


class Inflated(nnx.Module):
  """The denoiser; vdm/config/schema.py explains its arguments."""

  def __init__(
    self,
    channels: int,
    *,
    kind: str,
    architecture: str,
    num_classes: int,
    temporal_levels: tuple[int, ...],
    temporal_attention_levels: tuple[int, ...],
    temporal_depth: int,
    joint_attention: bool,
    joint_levels: int,
    head_size: int,
    attention: str,
    embed_width: int,
    scalars: Sequence[str],
    dropout: float,
    remat: str,
    text_length: int,
    rngs: nnx.Rngs,
  ):
    described = parse(kind, architecture)
    sizes = described.sizes
    if sizes.channels != channels:
      raise ValueError(
        f'The image model of config.model works on {sizes.channels} channels, '
        f'and the autoencoder gives {channels}: take its own autoencoder.'
      )
    self.noise, self.num_classes = described.noise, num_classes
    self.takes_text = described.takes_text
    if self.takes_text:
      shape = (text_length, described.text_width)
      setattr(self, NULL_TEXT, nnx.Param(jnp.zeros(shape, jnp.float32)))
    self.image = skeleton.ImageUNet(
      described,
      implementation=attention,
      dropout=dropout,
      remat=remat,
      rngs=rngs,
    )
    self.temporal = Temporal(
      sizes,
      temporal_levels=temporal_levels,
      temporal_attention_levels=temporal_attention_levels,
      temporal_depth=temporal_depth,
      joint_attention=joint_attention,
      joint_levels=joint_levels,
      heads=dict(head_size=head_size, implementation=attention),
      embed_width=embed_width,
      num_classes=num_classes,
      scalars=scalars,
      rngs=rngs,
    )

  def __call__(
    self,
    z: FloatArray['b t h w c'],
    levels: FloatArray['b t'],
    cond: dict[str, Array['b ...']],
    key: jax.Array | None = None,
  ) -> FloatArray['b t h w c']:
    """Predicts what the image model does, in the dtype of z.

    Args:
      z: noisy latents, of variance near one.
      levels: log-SNR of each frame.
      cond: 'label' int [b], negative for the null label, which all rows have if
        `num_classes` is 0; `scalars` as in `unet.UNet`, which clips of several
        frames alone are told. Of a model that takes text, 'text' [b n d] and
        'text_mask' [b n], see `conditional`; rows without a token, and all rows
        where both are left out, get the empty prompt.
      key: typed keys [b] of the dropout; None for no dropout.
    """
    context, after = None, skeleton.unchanged
    if self.takes_text:
      context = self._text(cond, z.shape[0])
    if z.shape[1] > 1:
      told = nnx.silu(self.temporal.embed(levels, cond)).astype(z.dtype)

      def after(name, x):
        return self.temporal(name, x, told)

    if not self.num_classes:  # Labels of the data are not the image model's.
      cond = {**cond, 'label': jnp.full(z.shape[:1], -1)}
    t = timesteps.timestep(self.noise, levels)
    return self.image(z, t, cond, context, key, after)

  def _text(self, cond, rows):
    null = jnp.asarray(self.null_text[...], jnp.float32)
    if 'text' not in cond:
      tokens = jnp.broadcast_to(null, (rows, *null.shape))
      return transformer.Text(tokens, jnp.ones(tokens.shape[:2], bool))
    told = cond['text_mask'].any(axis=1)[:, None]
    tokens = jnp.where(told[..., None], cond['text'], null)
    return transformer.Text(tokens, cond['text_mask'] | ~told)
