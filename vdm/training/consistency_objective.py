"""The objective of few steps: a denoiser becomes a consistency model.

The trajectory is that of the teacher, the network as it was when the stage
began, guided by its conditions: z at t and, by one step of DDIM, z at r. The
guidance is distilled with it, so that a sample of one step is one evaluation.
As r approaches t the error of that step vanishes, and with it what the teacher
does in few steps worse than in many. See `diffusion.consistency`.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vdm.config import condition_rules
from vdm.diffusion import conditions
from vdm.diffusion import consistency
from vdm.diffusion import guidance
from vdm.diffusion import process
from vdm.diffusion import samplers
from vdm.models import autoencoders
from vdm.sampling import denoised
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
  diffusion, options = config.diffusion, config.consistency
  groups = condition_rules.guided_by(config.model)
  denoise = denoised.make_denoiser(
    config, autoencoders.make_autoencoder(config.autoencoder)
  )

  def draw(batch, key, n):
    rows = clips_of.draw(batch, key)
    a = consistency.tightness(n, stage.steps, options.times)
    rows['earlier'] = consistency.earlier(
      rows['levels'], rows['loss_mask'], a, options.tighten
    )
    return rows

  def along_trajectory(teacher, z, rows):
    cond = conditions.of(rows)
    guided = guidance.guided(
      functools.partial(denoise, teacher),
      cond,
      guidance.by_groups(cond, dict.fromkeys(groups, options.guidance)),
    )
    levels = rows['levels']
    x0 = process.at_least_float32(guided(z, levels))
    return samplers.euler_step(z, x0, levels, rows['earlier'])

  def distance(params, frozen, x0, rows, dropout_keys=None):
    def value(params, z, levels):
      output = clips_of.apply(
        params, z, levels, conditions.of(rows), dropout_keys
      )
      return consistency.function(
        diffusion.prediction, output, z, levels, diffusion.sigma_data
      )

    levels = rows['levels']
    z = process.add_noise(x0, latent_clips.noise(rows, x0.shape), levels)
    before = along_trajectory(frozen['teacher'], z, rows)
    target = value(jax.lax.stop_gradient(params), before, rows['earlier'])
    return consistency.loss(
      value(params, z, levels),
      target,
      levels,
      rows['loss_mask'],
      diffusion.weighting,
      options.huber,
      diffusion.sigma_data,
    )

  def losses_of(params, frozen, rows, level):
    """Across the last and smallest gaps, whatever the step."""
    x0 = clips_of.encode(frozen, rows)
    levels, mask = jnp.full(x0.shape[:2], level), jnp.ones(x0.shape[:2])
    rows = rows | {
      'levels': levels,
      'loss_mask': mask,
      'earlier': consistency.earlier(
        levels, mask, options.times, options.tighten
      ),
    }
    _, _, frames = distance(params, frozen, x0, rows)
    return {'val_loss': frames.mean(axis=1)}

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
