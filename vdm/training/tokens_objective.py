"""The objective of masked tokens: to tell those that are hidden.

Codes of an autoencoder with a bottleneck of finite scalars become tokens; see
`diffusion.masking` for the process and the loss.
"""

from collections.abc import Callable
import itertools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vdm import models
from vdm.diffusion import conditions
from vdm.diffusion import losses
from vdm.diffusion import masking
from vdm.diffusion import process
from vdm.models import autoencoders
from vdm.sampling import unmasked
from vdm.training import objective
from vdm.training import videos

EDGES = (0.0, 0.25, 0.5, 0.75, 1.0)  # Of the bins of the logged losses.


def make(
  config: ConfigDict,
  stage: ConfigDict,
  mesh: jax.sharding.Mesh,
  poll: Callable[[], None],
) -> objective.Objective:
  """Returns the objective of a stage; see `objectives.make_objective`."""
  codec = autoencoders.make_autoencoder(config.autoencoder)
  network = models.make_transformer(config.model, codec.levels)
  tokens_of = unmasked.make_tokens(config, codec)
  dtype = jnp.dtype(config.train.compute_dtype)

  def encode(frozen, rows):
    codes, _ = videos.encode(codec, dtype, frozen, rows)
    return jax.lax.stop_gradient(tokens_of.encode(codes))

  def draw(batch, key, n):
    del n
    rows, frames = videos.latent_extent(codec, stage, batch)
    times, given = losses.draw_times(
      jax.random.fold_in(key, objective.LEVELS),
      rows,
      frames,
      stage.frame_levels.to_dict(),
    )
    return {
      **conditions.rest(batch),
      **videos.told(config.model, batch, key),
      'shares': jnp.broadcast_to(masking.share(times), given.shape),
      'given': given,
      'key': objective.row_keys(key, rows),
    }

  def told_tokens(params, frozen, rows, smoothing, dropout_keys=None):
    """Returns (loss, hits, masked) of every position [b t h w]."""
    tokens = encode(frozen, rows)
    keys = process.fold_in(rows['key'], objective.NOISE)
    masked = masking.draw(
      keys, rows['shares'], rows['given'], tokens.shape[2:4]
    )
    logits = network.apply(
      params, tokens, masked, conditions.of(rows), dtype, key=dropout_keys
    )
    loss, hits = masking.cross_entropy(
      logits, tokens, tokens_of.sizes, smoothing
    )
    return jnp.where(masked, loss, 0), masked & hits, masked

  def loss(params, frozen, rows):
    found = told_tokens(
      params,
      frozen,
      rows,
      config.tokens.label_smoothing,
      videos.dropout_keys(config.model, rows),
    )
    total, hits, count = (x.sum((1, 2, 3), dtype='float32') for x in found)
    return total.sum(), count.sum(), _binned(rows, total, hits, count)

  def losses_of(params, frozen, rows, share):
    shape = videos.latent_extent(codec, stage, {'video': rows['video']})
    rows = rows | {
      'shares': jnp.full(shape, share),
      'given': jnp.zeros(shape, bool),
    }
    total, _, masked = told_tokens(params, frozen, rows, smoothing=0.0)
    axes = (1, 2, 3)
    return {'val_loss': total.sum(axes) / masked.sum(axes)}

  samples, preview = videos.generation(config, stage, mesh, poll)
  places = {f'masked_{x:g}': x for x in config.tokens.eval_shares}
  return objective.Objective(
    init=lambda key, clips: jax.jit(network.init)(key),
    draw=draw,
    loss=loss,
    validate=videos.validation(config, stage, mesh, poll, places, losses_of),
    preview=preview,
    excluded_paths=videos.excluded_paths,
    abstract_params=network.abstract_params,
    inherits=True,
    constant=(),
    imported=(),
    samples=samples,
  )


def _binned(rows, total, hits, count):
  """Returns {name: (sum, count)} of clips by the share that is masked.

  The share is of the frames that are not given.
  """
  free = ~rows['given']
  share = jnp.where(free, rows['shares'], 0).sum(1) / free.sum(1)
  found = {'accuracy': (hits.sum(), count.sum())}
  for low, high in itertools.pairwise(EDGES):
    inside = (low <= share) & ((share < high) | (high == EDGES[-1]))
    sums = [jnp.where(inside, x, 0).sum() for x in (total, hits, count)]
    name = f'masked_{low:g}_to_{high:g}'
    found[f'loss/{name}'] = sums[0], sums[2]
    found[f'accuracy/{name}'] = sums[1], sums[2]
  return found
