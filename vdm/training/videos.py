"""What the objectives that make videos share, whatever their noise is.

They are told conditions, some of which training drops; they are validated with
those of held-out clips and without; and they make videos.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from vdm import generate
from vdm.common import sizes
from vdm.config import condition_rules
from vdm.config import image_model_rules
from vdm.config import sampling
from vdm.diffusion import cascade
from vdm.diffusion import conditions
from vdm.diffusion import process
from vdm.diffusion import rollouts
from vdm.models import autoencoders
from vdm.models import unet
from vdm.multihost import arrays
from vdm.sampling import batching
from vdm.sampling import coders
from vdm.training import objective


def latent_extent(
  codec: autoencoders.Autoencoder, stage: ConfigDict, batch: dict[str, Any]
) -> tuple[int, int]:
  """Returns the rows of a batch, and the frames of its latents.

  Args:
    codec: the autoencoder.
    stage: the stage's.
    batch: of frames, or of cached latents.
  """
  inputs = conditions.rest(batch)
  rows, frames = next(iter(inputs.values())).shape[:2]
  if 'video' in inputs:
    frames = coders.latent_shape(codec, frames, sizes.of(stage))[0]
  return rows, frames


def encode(
  codec: autoencoders.Autoencoder,
  dtype: jnp.dtype,
  frozen: dict[str, Any],
  rows: dict[str, Any],
) -> tuple[jax.Array, jax.Array | None]:
  """Returns the mean and log-variance of latents as the autoencoder has them.

  Args:
    codec: the autoencoder.
    dtype: to compute in.
    frozen: with its 'params'.
    rows: of frames, or of cached latents, which may have no log-variance.
  """
  if 'video' not in rows:
    return rows['mean'], rows.get('logvar')
  x = coders.to_float(rows['video']).astype(dtype)
  return codec.encode(frozen['params'], x)


def told(
  model: ConfigDict, batch: dict[str, Any], key: jax.Array
) -> dict[str, jax.Array]:
  """Returns what training tells of a batch: its conditions, some dropped.

  Args:
    model: `config.model`.
    batch: with conditions, see `diffusion.conditions`.
    key: of the step.
  """
  shares = dict.fromkeys(conditions.SCALARS, model.scalar_dropout)
  shares |= {'label': model.label_dropout, 'text': model.text.dropout}
  own = jax.random.fold_in(key, objective.CONDITIONS)
  return conditions.drop(conditions.of(batch), own, shares)


def dropout_keys(model: ConfigDict, rows: dict[str, Any]) -> jax.Array | None:
  """Returns a key a row for the network's dropout; None without any."""
  if not model.dropout:
    return None
  return process.fold_in(rows['key'], objective.DROPOUT)


def excluded_paths(single_frames: bool) -> tuple[str, ...]:
  """Returns patterns of parameters that a step leaves, on single frames or not.

  The empty prompt's tokens are data, whatever a stage freezes.
  """
  single = (unet.TEMPORAL,) if single_frames else ()
  return (image_model_rules.NULL_TEXT, *single)


def validation(
  config: ConfigDict,
  stage: ConfigDict,
  mesh: jax.sharding.Mesh,
  poll: Callable[[], None],
  places: Mapping[str, float],
  losses_of: Callable[..., dict[str, jax.Array]],
) -> Callable[..., dict[str, float]]:
  """Returns an objective's `validate`: losses at some places of the noise.

  Args:
    config: the run's.
    stage: the stage's.
    mesh: devices to split the clips over.
    poll: called after every batch; may raise.
    places: {name: value}: log-SNRs, or shares of masked tokens.
    losses_of: (params, frozen, rows, value) -> {'val_loss': [b], ...}, of rows
      with every frame at one place.
  """

  def losses_at(params, frozen, video, cond, index, place, total):
    keys = jax.random.split(jax.random.key(config.seed), total)[index]
    return losses_of(
      params, frozen, {'video': video, 'key': keys, **cond}, place
    )

  losses_at = jax.jit(losses_at, static_argnames='total')

  def validate(params, frozen, clips):
    results = {}
    total = len(clips['video'])
    # Without conditions, and with those of the clips.
    cond = conditions.of(clips)
    given = {'val_loss': conditions.null(cond)}
    if name := condition_rules.told_loss(config.model):
      given[name] = cond
    for name, cond in given.items():
      numbered = (clips['video'], cond, np.arange(total))
      for place, value in places.items():
        sums = {}
        for rows, n in batching.chunks(numbered, stage.batch, mesh):
          out = losses_at(params, frozen, *rows, value, total)
          for key, x in arrays.to_host(out).items():
            sums[key] = sums.get(key, 0.0) + float(x[:n].sum())
          poll()
        sums[name] = sums.pop('val_loss')
        for key, x in sums.items():
          results[f'{key}/{place}'] = x / total
      results[name] = float(
        np.mean([v for k, v in results.items() if f'{name}/' in k])
      )
    return results

  return validate


def generation(
  config: ConfigDict,
  stage: ConfigDict,
  mesh: jax.sharding.Mesh,
  poll: Callable[[], None],
) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Returns an objective's `samples` and `preview`; see `validation`."""
  # Until there is an earlier average to guide against, if there will be one.
  alone = sampling.by_conditions(config)
  generators = {False: generate.make_generator(alone, stage, mesh, poll)}

  def generator(worse):
    guided = worse is not None
    if guided not in generators:
      generators[guided] = generate.make_generator(
        config, stage, mesh, poll, worse
      )
    return generators[guided]

  def samples(params, frozen, clips, task=rollouts.PLAIN):
    frozen, worse = objective.apart(frozen)
    # The conditions of those clips, so that like stands beside like.
    seeds = config.sample.seed + np.arange(len(clips['video']))
    given = clips['video'][:, list(task.given)]
    cond = conditions.of(clips)
    make = generator(worse)
    return make.samples(params, frozen, cond, seeds, task, given)

  def preview(params, frozen, clips):
    rows = np.arange(config.sample.num) % len(clips['video'])
    clips = {k: v[rows] for k, v in clips.items()}
    shown = {'real': clips['video']}
    if cascade.SMALL in clips:
      low = config.model.low
      shown['low'] = arrays.to_host(
        cascade.enlarge(clips[cascade.SMALL], low.space_factor, low.time_factor)
      )
    codec, worse = objective.apart(frozen)
    return {
      **shown,
      'reconstruction': generator(worse).reconstruct(codec, clips['video']),
      'samples': samples(params, frozen, clips),
    }

  return samples, preview
