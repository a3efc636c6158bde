"""What objectives share that train a network on clips of noised latents."""

from collections.abc import Callable
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from vdm import generate
from vdm import models
from vdm.common import sizes
from vdm.config import condition_rules
from vdm.config import image_model_rules
from vdm.data import text_cache
from vdm.diffusion import conditions
from vdm.diffusion import losses
from vdm.diffusion import process
from vdm.diffusion import rollouts
from vdm.models import autoencoders
from vdm.models import unet
from vdm.models.autoencoders import latents
from vdm.models.image_unets import inflated
from vdm.models.image_unets import published
from vdm.multihost import arrays
from vdm.training import objective


class LatentClips(NamedTuple):
  """A stage's network, and the noised latents that it is trained on.

  Attributes:
    init: (key, clips) -> parameters.
    abstract_params: () -> their shapes and dtypes.
    encode: (frozen, rows, sampled) -> normalised latents of rows of frames, or
      of rows of cached latents; `sampled` from the posterior, or its means.
    draw: (batch, key) -> rows: batch, conditions, noise levels and keys.
    apply: (params, z, levels, cond, dropout_key) -> the network's output.
    constant: see `objective.Objective`.
    imported: likewise.
  """

  init: Callable[..., dict[str, Any]]
  abstract_params: Callable[[], dict[str, Any]]
  encode: Callable[..., jax.Array]
  draw: Callable[..., dict[str, Any]]
  apply: Callable[..., jax.Array]
  constant: tuple[str, ...]
  imported: tuple[str, ...]


def make(config: ConfigDict, stage: ConfigDict) -> LatentClips:
  """Returns the functions of a stage.

  Raises:
    ValueError: the loss would train no x0 at some levels, see `losses.check`.
  """
  codec = autoencoders.make_autoencoder(config.autoencoder)
  network = models.make_unet(config.model, codec.channels)
  dtype = jnp.dtype(config.train.compute_dtype)
  options = config.diffusion
  schedule = generate.make_schedule(options, codec, stage)
  losses.check(options.prediction, options.weighting, schedule)

  constant = image_model_rules.constant_patterns(config)
  cast = functools.partial(inflated.stored, patterns=constant, dtype=dtype)

  def init(key, clips):
    del clips
    if config.model.weights:
      params = published.initial(config.model, network.init, key)
    else:
      params = jax.jit(network.init)(key)
    if inflated.NULL_TEXT in params:
      null = text_cache.Texts(config.data.texts).null()
      params = {**params, inflated.NULL_TEXT: jnp.asarray(null)}
    return cast(params)

  def encode(frozen, rows, sampled=False):
    if 'video' in rows:
      x = generate.to_float(rows['video']).astype(dtype)
      mean, logvar = codec.encode(frozen['params'], x)
    else:
      mean, logvar = rows['mean'], rows.get('logvar')
    z = mean.astype(jnp.float32)
    if sampled:
      keys = process.fold_in(rows['key'], objective.POSTERIOR)
      z = latents.sample(z, logvar, keys)
    return latents.normalise(z, frozen['stats'])

  def draw(batch, key):
    inputs = conditions.rest(batch)
    rows, frames = next(iter(inputs.values())).shape[:2]
    if 'video' in inputs:
      frames = generate.latent_shape(codec, frames, sizes.of(stage))[0]
    levels, loss_mask = losses.draw_levels(
      jax.random.fold_in(key, objective.LEVELS),
      rows,
      frames,
      density=options.density,
      mean=options.density_mean,
      std=options.density_std,
      schedule=schedule,
      frame_levels=stage.frame_levels.to_dict(),
      context_noise=stage.context_noise,
    )
    cond = conditions.drop(
      conditions.of(batch),
      jax.random.fold_in(key, objective.CONDITIONS),
      dict.fromkeys(conditions.SCALARS, config.model.scalar_dropout)
      | {'label': config.model.label_dropout}
      | {'text': config.model.text.dropout},
    )
    return {
      **inputs,
      **cond,
      'levels': levels,
      'loss_mask': loss_mask,
      'key': objective.row_keys(key, rows),
    }

  def apply(params, z, levels, cond, dropout_key=None):
    return network.apply(params, z.astype(dtype), levels, cond, key=dropout_key)

  return LatentClips(
    init=init,
    abstract_params=lambda: jax.eval_shape(cast, network.abstract_params()),
    encode=encode,
    draw=draw,
    apply=apply,
    constant=constant,
    imported=(
      image_model_rules.NULL_TEXT,
      *((inflated.IMAGE,) if config.model.weights else ()),
    ),
  )


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


def noise(rows: dict[str, Any], shape: tuple[int, ...]) -> jax.Array:
  """Returns the noise of rows, each from its own key."""
  return process.noise(process.fold_in(rows['key'], objective.NOISE), shape)


def binned(
  options: ConfigDict, rows: dict[str, Any], frames: jax.Array
) -> dict[str, tuple[jax.Array, jax.Array]]:
  """Returns sums and counts of the loss of frames by their noise level.

  Args:
    options: `config.diffusion`.
    rows: see `LatentClips.draw`.
    frames: [b t].
  """
  sums, counts = losses.level_bins(
    rows['levels'], frames, rows['loss_mask'], options.bin_edges
  )
  names = bin_names(options.bin_edges)
  return {name: (sums[i], counts[i]) for i, name in enumerate(names)}


def bin_names(edges: tuple[float, ...]) -> list[str]:
  """Returns the names of the loss by noise level, the noisiest first."""
  bounds = ['-inf', *(f'{edge:+g}' for edge in edges), '+inf']
  return [
    f'loss/logsnr_{low}_to_{high}' for low, high in itertools.pairwise(bounds)
  ]


def assemble(
  config: ConfigDict,
  stage: ConfigDict,
  mesh: jax.sharding.Mesh,
  poll: Callable[[], None],
  clips_of: LatentClips,
  *,
  draw: Callable[..., Any],
  distance: Callable[..., Any],
  losses_of: Callable[..., dict[str, jax.Array]],
) -> objective.Objective:
  """Returns an objective over noised latents.

  Args:
    config: the run's.
    stage: the stage's.
    mesh: devices to split clips over.
    poll: called between the parts of what takes long; may raise.
    clips_of: what `make` returned.
    draw: see `objective`.
    distance: (params, frozen, x0, rows, dropout_keys) -> (total, count,
      frames), as `losses.loss` does.
    losses_of: see `validation`.
  """

  def loss(params, frozen, rows):
    x0 = clips_of.encode(
      frozen, rows, sampled=config.diffusion.sample_posterior
    )
    total, count, frames = distance(
      *(params, frozen, jax.lax.stop_gradient(x0), rows),
      dropout_keys(config.model, rows),
    )
    return total, count, binned(config.diffusion, rows, frames)

  samples, preview = generation(config, stage, mesh, poll)
  return objective.Objective(
    init=clips_of.init,
    draw=draw,
    loss=loss,
    validate=validation(config, stage, mesh, poll, losses_of),
    preview=preview,
    excluded_paths=excluded_paths,
    abstract_params=clips_of.abstract_params,
    inherits=True,
    constant=clips_of.constant,
    imported=clips_of.imported,
    samples=samples,
  )


def validation(
  config: ConfigDict,
  stage: ConfigDict,
  mesh: jax.sharding.Mesh,
  poll: Callable[[], None],
  losses_of: Callable[..., dict[str, jax.Array]],
) -> Callable[..., dict[str, float]]:
  """Returns an objective's `validate`: losses at `diffusion.eval_levels`.

  Args:
    config: the run's.
    stage: the stage's.
    mesh: devices to split the clips over.
    poll: called after every batch; may raise.
    losses_of: (params, frozen, rows) -> {'val_loss': [b], ...}, of rows with
      every frame at one level.
  """

  def losses_at(params, frozen, video, cond, index, level, total):
    keys = jax.random.split(jax.random.key(config.seed), total)[index]
    return losses_of(
      params, frozen, {'video': video, 'key': keys, **cond}, level
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
      for level in config.diffusion.eval_levels:
        sums = {}
        for rows, n in generate.chunks(numbered, stage.batch, mesh):
          out = losses_at(params, frozen, *rows, level, total)
          for key, x in arrays.to_host(out).items():
            sums[key] = sums.get(key, 0.0) + float(x[:n].sum())
          poll()
        sums[name] = sums.pop('val_loss')
        for key, value in sums.items():
          results[f'{key}/logsnr_{level:+g}'] = value / total
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
  make = generate.make_generator(config, stage, mesh, poll)

  def samples(params, frozen, clips, task=rollouts.PLAIN):
    # The conditions of those clips, so that like stands beside like.
    seeds = config.sample.seed + np.arange(len(clips['video']))
    given = clips['video'][:, list(task.given)]
    cond = conditions.of(clips)
    return make.samples(params, frozen, cond, seeds, task, given)

  def preview(params, frozen, clips):
    rows = np.arange(config.sample.num) % len(clips['video'])
    clips = {k: v[rows] for k, v in clips.items()}
    return {
      'real': clips['video'],
      'reconstruction': make.reconstruct(frozen, clips['video']),
      'samples': samples(params, frozen, clips),
    }

  return samples, preview
