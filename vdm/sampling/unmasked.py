"""Windows of masked tokens, which a transformer fills in.

The latents are codes (`autoencoders.fsq`). Held frames are tokens that are
never masked: given frames, prediction, interpolation and rollouts need nothing
else.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

from etils.array_types import FloatArray
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vdm import models
from vdm.config import guidance_rules
from vdm.diffusion import guidance
from vdm.diffusion import masking
from vdm.diffusion import process
from vdm.models import autoencoders
from vdm.models import tokens as codes
from vdm.models.autoencoders import fsq
from vdm.sampling import keys as streams


class Tokens(NamedTuple):
  """How a run's codes are tokens.

  Attributes:
    sizes: numbers of values of the groups' tokens.
    encode: codes [b t h w c] -> int32 tokens [b t h w g].
    decode: the inverse, to the bit.
  """

  sizes: tuple[int, ...]
  encode: Callable[..., jax.Array]
  decode: Callable[..., FloatArray['b t h w c']]


def make_tokens(config: ConfigDict, codec: autoencoders.Autoencoder) -> Tokens:
  """Returns how codes are tokens, with as many values as `config` allows."""
  groups = codes.group(codec.levels, config.model.transformer.vocabulary)

  def encode(z):
    return codes.pack(fsq.to_digits(z, codec.levels), groups)

  def decode(tokens):
    return fsq.from_digits(codes.unpack(tokens, groups), codec.levels)

  return Tokens(codes.sizes(groups), encode, decode)


def make_predictor(
  config: ConfigDict, codec: autoencoders.Autoencoder
) -> Callable[..., FloatArray['b t h w v']]:
  """Returns (params, tokens, masked, cond) -> logits of a run's network."""
  network = models.make_transformer(config.model, codec.levels)
  dtype = jnp.dtype(config.train.compute_dtype)

  def predict(params, tokens, masked, cond):
    return network.apply(params, tokens, masked, cond, dtype)

  return predict


def make_windows(
  config: ConfigDict,
  codec: autoencoders.Autoencoder,
  worse: ConfigDict | None,
) -> Callable[..., FloatArray['n t h w c']]:
  """Returns what makes the latents of a window; see the room.

  Args:
    config: the run's.
    codec: the autoencoder.
    worse: the configuration of a network to guide against.
  """
  options = config.sample
  tokens = make_tokens(config, codec)
  predict = make_predictor(config, codec)
  predict_worse = make_predictor(worse, codec) if worse else None

  @jax.jit
  def run(params, worse_params, cond, seeds, number, known, held):
    if predict_worse:
      other = functools.partial(predict_worse, worse_params)
      contrasts = [guidance.Contrast(options.guidance - 1, cond, predict=other)]
    else:
      scales = guidance_rules.scales(config.model, options)
      contrasts = guidance.by_groups(cond, scales)
    guided = guidance.guided_logits(
      functools.partial(predict, params), cond, contrasts
    )
    masked = jnp.broadcast_to(~held[..., None, None], known.shape[:-1])
    found = masking.sample(
      guided,
      tokens.encode(known),
      masked,
      process.fold_in(streams.of_window(seeds, number), streams.STEPS),
      sizes=tokens.sizes,
      left=masking.counts(masked[0].sum(), options.steps),
      temperature=options.temperature,
      noise=options.order_noise,
    )
    z = tokens.decode(found)
    return jnp.where(process.per_frame(held, z), known, z)

  def make_window(
    task, window, params, worse_params, cond, seeds, number, known
  ):
    del task
    return run(
      params, worse_params, cond, seeds, number, known, window.held[None]
    )

  return make_window
