"""The objective of an autoencoder: reconstruction, with a posterior sample."""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vdm.models import autoencoders
from vdm.models.autoencoders import fsq
from vdm.models.autoencoders import losses as autoencoder_losses
from vdm.sampling import batching
from vdm.sampling import coders
from vdm.training import objective


def make(
  config: ConfigDict,
  stage: ConfigDict,
  mesh: jax.sharding.Mesh,
  poll: Callable[[], None],
) -> objective.Objective:
  """Returns the objective of a stage; see `objectives.make_objective`."""
  codec = autoencoders.make_autoencoder(config.autoencoder)
  dtype = jnp.dtype(config.train.compute_dtype)

  def init(key, clips):
    return codec.init(key, coders.to_float(clips['video']))

  def draw(batch, key, n):
    del n
    video = batch['video']
    return {'video': video, 'key': objective.row_keys(key, len(video))}

  def loss(params, frozen, rows):
    del frozen
    x = coders.to_float(rows['video']).astype(dtype)
    total, parts = codec.loss(params, x, rows['key'])
    count = jnp.float32(len(total))
    return total.sum(), count, {k: (v.sum(), count) for k, v in parts.items()}

  @jax.jit
  def reconstruct(params, video):
    x = coders.to_float(video)
    mean, _ = codec.encode(params, x.astype(dtype))
    y = codec.decode(params, mean).astype(jnp.float32)
    return coders.to_uint8(y), autoencoder_losses.psnr(x, y), mean

  def run(params, clips):
    return batching.apply(
      functools.partial(reconstruct, params),
      (clips['video'],),
      stage.batch,
      mesh,
      poll,
    )

  def validate(params, frozen, clips):
    del frozen
    _, psnr, mean = run(params, clips)
    values = {'val_psnr': float(psnr.mean())}
    if codec.levels:
      tokens = fsq.to_tokens(jnp.asarray(mean), codec.levels)
      values |= fsq.usage(tokens, fsq.size(codec.levels))
    return values

  def preview(params, frozen, clips):
    del frozen
    clips = {k: v[: config.sample.num] for k, v in clips.items()}
    return {'real': clips['video'], 'reconstruction': run(params, clips)[0]}

  return objective.Objective(
    init=init,
    draw=draw,
    loss=loss,
    validate=validate,
    preview=preview,
    excluded_paths=codec.excluded_paths,
    abstract_params=codec.abstract_params,
    inherits=False,
    constant=(),
    imported=(),
    samples=None,
  )
