"""The objective of diffusion: denoising of latents, one noise level a frame."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vdm.config import cascade_rules
from vdm.diffusion import losses
from vdm.diffusion import process
from vdm.training import latent_clips
from vdm.training import objective


def make(
  config: ConfigDict,
  stage: ConfigDict,
  mesh: jax.sharding.Mesh,
  poll: Callable[[], None],
) -> objective.Objective:
  """Returns the objective of a stage; see `objectives.make_objective`."""
  clips_of = latent_clips.make(config, stage)
  options = config.diffusion

  def draw(batch, key, n):
    del n
    return clips_of.draw(batch, key)

  def distance(params, frozen, x0, rows, dropout_keys=None):
    eps = latent_clips.noise(rows, x0.shape)
    z = process.add_noise(x0, eps, rows['levels'])
    cond = clips_of.told(frozen, rows)
    output = clips_of.apply(params, z, rows['levels'], cond, dropout_keys)
    return losses.loss(
      options.prediction,
      output,
      x0,
      eps,
      rows['levels'],
      rows['loss_mask'],
      options.weighting,
      options.sigma_data,
    )

  def losses_of(params, frozen, rows, level):
    x0 = clips_of.encode(frozen, rows)
    rows = rows | {
      'levels': jnp.full(x0.shape[:2], level),
      'loss_mask': jnp.ones(x0.shape[:2]),
    }
    if cascade_rules.is_told(config.model):
      level_of_low = process.level_of_sigma(config.sample.low_noise)
      rows['low_noise'] = jnp.full(len(x0), level_of_low)
    weight = losses.weight(options.weighting, level, options.sigma_data)
    return {
      'val_loss': distance(params, frozen, x0, rows)[2].mean(axis=1),
      'val_loss_of_zero': weight * jnp.mean(jnp.square(x0), axis=(1, 2, 3, 4)),
    }

  return latent_clips.assemble(
    config,
    stage,
    mesh,
    poll,
    clips_of,
    draw=draw,
    distance=distance,
    losses_of=losses_of,
  )
