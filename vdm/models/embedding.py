"""The embedding of noise levels and of what is told, as denoisers share it."""

from collections.abc import Sequence

from etils.array_types import Array, FloatArray
from flax import nnx
import jax.numpy as jnp

from vdm.models import layers


def level_features(
  levels: FloatArray['b t'], width: int
) -> FloatArray['b t e']:
  """Returns `width` sinusoids of a bounded function of log-SNR.

  12 tanh(level / 12) is nearly the level itself where denoising is hard and
  stays finite for frames that are clean or pure noise.
  """
  bounded = 12.0 * jnp.tanh(levels.astype(jnp.float32) / 12.0)
  frequency = jnp.geomspace(0.05, 3.0, width // 2)
  angle = bounded[..., None] * frequency[None, None]
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def scalar_features(x: FloatArray[' b'], width: int) -> FloatArray['b e']:
  """Returns `width` sinusoids of the logarithm of a scalar, 0 if unknown.

  Args:
    x: not negative; NaN where it is unknown.
    width: of the features.
  """
  known = jnp.isfinite(x)
  x = jnp.log(jnp.maximum(jnp.where(known, x, 1.0), 1e-3))
  frequency = jnp.geomspace(0.2, 8.0, width // 2)
  angle = x.astype(jnp.float32)[:, None] * frequency[None]
  features = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
  return jnp.where(known[:, None], features, 0.0)


class Embedding(nnx.Module):
  """Base of modules that embed levels, labels and scalars.

  It is a base, and not a child, so that its parameters keep the names that they
  have in checkpoints.
  """

  def __init__(
    self,
    width: int,
    num_classes: int,
    scalars: Sequence[str],
    scalar_prefix: str,
    *,
    time_patch: int = 1,
    low: bool = False,
    rngs: nnx.Rngs,
  ):
    """Makes the layers.

    Args:
      width: of the embedding.
      num_classes: labels; 0: none are told.
      scalars: names of the scalars.
      scalar_prefix: of the names of their layers.
      time_patch: frames that share an embedding of all their levels.
      low: whether a smaller video is told, of which this is the noise.
      rngs: of the initial values.
    """
    self.feature_width = width
    self.time_patch = time_patch
    self.embed_in = layers.Linear(time_patch * width, width, rngs=rngs)
    self.embed_out = layers.Linear(width, width, rngs=rngs)
    # The last row is the null label.
    self.embed_label = (
      nnx.Param(
        layers.scaled_normal(rngs.params(), (num_classes + 1, width), 1)
      )
      if num_classes
      else None
    )
    # Zero at the start, so that a network that gains one computes what it did.
    self.scalars = tuple((name, scalar_prefix + name) for name in scalars)
    for _, layer in self.scalars:
      linear = layers.Linear(width, width, rngs=rngs, init_scale=0.0)
      setattr(self, layer, linear)
    self.embed_low = (
      layers.Linear(width, width, rngs=rngs, init_scale=0.0) if low else None
    )

  def embed(
    self, levels: FloatArray['b t'], cond: dict[str, Array['b ...']]
  ) -> FloatArray['b n e']:
    """Embeds each patch's levels and the clip's label and scalars.

    Single frames have neither rate nor motion, and are told no scalars.

    Args:
      levels: log-SNR of each frame; a patch is `time_patch` of them.
      cond: 'label' int [b], negative for the null label; float [b] for each
        scalar, NaN or left out for unknown; with a smaller video its
        'low_noise'.

    Returns:
      The sum, before its nonlinearity.
    """
    features = level_features(levels, self.feature_width)
    b, t, e = features.shape
    features = features.reshape(b, t // self.time_patch, self.time_patch * e)
    embedding = self.embed_out(nnx.silu(self.embed_in(features)))
    if self.embed_label is not None:
      table = self.embed_label[...]
      null = table.shape[0] - 1
      label = jnp.where(cond['label'] < 0, null, cond['label'])
      embedding = embedding + table[label][:, None].astype(embedding.dtype)
    for name, layer in self.scalars if levels.shape[1] > 1 else ():
      unknown = jnp.full(levels.shape[:1], jnp.nan)
      features = scalar_features(cond.get(name, unknown), self.feature_width)
      embedding = embedding + getattr(self, layer)(features)[:, None]
    if self.embed_low is not None:
      features = level_features(cond['low_noise'][:, None], self.feature_width)
      embedding = embedding + self.embed_low(features)
    return embedding
