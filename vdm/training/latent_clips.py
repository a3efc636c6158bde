"""What objectives share that train a network on clips of noised latents."""

from collections.abc import Callable
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vdm import generate
from vdm import models
from vdm.config import cascade_rules
from vdm.config import image_model_rules
from vdm.data import text_cache
from vdm.diffusion import cascade
from vdm.diffusion import conditions
from vdm.diffusion import losses
from vdm.diffusion import process
from vdm.models import autoencoders
from vdm.models.autoencoders import latents
from vdm.models.image_unets import inflated
from vdm.models.image_unets import published
from vdm.training import objective
from vdm.training import videos


class LatentClips(NamedTuple):
  """A stage's network, and the noised latents that it is trained on.

  Attributes:
    init: (key, clips) -> parameters.
    abstract_params: () -> their shapes and dtypes.
    encode: (frozen, rows, sampled) -> normalised latents of rows of frames, or
      of rows of cached latents; `sampled` from the posterior, or its means.
      With `model.low.residual` what they have beyond the enlarged small
      video's.
    draw: (batch, key) -> rows: batch, conditions, noise levels and keys.
    told: (frozen, rows) -> the conditions of rows, as the network takes them.
    apply: (params, z, levels, cond, dropout_key) -> the network's output.
    constant: see `objective.Objective`.
    imported: likewise.
  """

  init: Callable[..., dict[str, Any]]
  abstract_params: Callable[[], dict[str, Any]]
  encode: Callable[..., jax.Array]
  draw: Callable[..., dict[str, Any]]
  told: Callable[..., dict[str, jax.Array]]
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
  options, low = config.diffusion, config.model.low
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

  def encode_all(frozen, rows, sampled=False):
    mean, logvar = videos.encode(codec, dtype, frozen, rows)
    z = mean.astype(jnp.float32)
    if sampled:
      keys = process.fold_in(rows['key'], objective.POSTERIOR)
      z = latents.sample(z, logvar, keys)
    return latents.normalise(z, frozen['stats'])

  def encode(frozen, rows, sampled=False):
    z = encode_all(frozen, rows, sampled)
    if not low.residual:
      return z
    return cascade.missing(
      z,
      rows['video'],
      lambda video: encode_all(frozen, {'video': video}),
      low.space_factor,
      low.time_factor,
    )

  def draw(batch, key):
    rows, frames = videos.latent_extent(codec, stage, batch)
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
    drawn = {}
    if cascade_rules.is_told(config.model):
      own = jax.random.fold_in(key, objective.AUGMENTATION)
      drawn['low_noise'] = cascade.draw_levels(own, rows, low.noise)
    return {
      **conditions.rest(batch),
      **videos.told(config.model, batch, key),
      **drawn,
      'levels': levels,
      'loss_mask': loss_mask,
      'key': objective.row_keys(key, rows),
    }

  def told(frozen, rows):
    cond = conditions.of(rows)
    if not cascade_rules.is_told(config.model):
      return cond
    # Of the clip itself, also where clips come with their small versions.
    cond.pop(cascade.SMALL, None)
    factors = low.space_factor, low.time_factor
    small = cascade.shrink(rows['video'], *factors)
    keys = process.fold_in(rows['key'], objective.LOW)
    return cond | cascade.tell(
      small,
      rows['low_noise'],
      keys,
      lambda video: encode_all(frozen, {'video': video}),
      *factors,
    )

  def apply(params, z, levels, cond, dropout_key=None):
    return network.apply(params, z.astype(dtype), levels, cond, key=dropout_key)

  return LatentClips(
    init=init,
    abstract_params=lambda: jax.eval_shape(cast, network.abstract_params()),
    encode=encode,
    draw=draw,
    told=told,
    apply=apply,
    constant=constant,
    imported=(
      image_model_rules.NULL_TEXT,
      *((inflated.IMAGE,) if config.model.weights else ()),
    ),
  )


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
    losses_of: see `videos.validation`.
  """

  def loss(params, frozen, rows):
    x0 = clips_of.encode(
      frozen, rows, sampled=config.diffusion.sample_posterior
    )
    total, count, frames = distance(
      params,
      frozen,
      jax.lax.stop_gradient(x0),
      rows,
      videos.dropout_keys(config.model, rows),
    )
    return total, count, binned(config.diffusion, rows, frames)

  samples, preview = videos.generation(config, stage, mesh, poll)
  places = {f'logsnr_{x:+g}': x for x in config.diffusion.eval_levels}
  return objective.Objective(
    init=clips_of.init,
    draw=draw,
    loss=loss,
    validate=videos.validation(config, stage, mesh, poll, places, losses_of),
    preview=preview,
    excluded_paths=videos.excluded_paths,
    abstract_params=clips_of.abstract_params,
    inherits=True,
    constant=clips_of.constant,
    imported=clips_of.imported,
    samples=samples,
  )
