"""What a stage optimises: an objective is a handful of functions.

  init     (key, clips)           -> parameters
  draw     (batch, key)           -> rows: the batch and its randomness
  loss     (params, frozen, rows) -> (total, count, sums), which add up over
                                     rows; the loss is total / count
  validate (params, frozen, clips)-> {name: number}
  preview  (params, frozen, clips)-> {name: uint8 [n t h w 3]}
  samples  (params, frozen, clips)-> uint8 [n t h w 3], one a clip, of its
                                     conditions; for a `rollouts.Task` that
                                     follows, with its frames given

`frozen` is an argument and never a captured constant: nothing for the
autoencoder, and for diffusion the autoencoder's parameters and statistics.
The training loop knows neither of the two.
"""

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
from vdm.config import image_model_rules
from vdm.config import rules
from vdm.diffusion import conditions
from vdm.diffusion import losses
from vdm.diffusion import process
from vdm.diffusion import rollouts
from vdm.models import autoencoders
from vdm.models import unet
from vdm.models.autoencoders import fsq
from vdm.models.autoencoders import latents
from vdm.models.autoencoders import losses as autoencoder_losses
from vdm.models.image_unets import inflated
from vdm.models.image_unets import published
from vdm.multihost import arrays

# Streams of a step's key and of a row's key.
LEVELS, CONDITIONS, ROWS = 0, 1, 2
NOISE, DROPOUT, POSTERIOR = 0, 1, 2


class Objective(NamedTuple):
  """The functions of an objective; see the module's docstring.

  Attributes:
    excluded_paths: single_frames -> patterns of the paths that a step does
      not train, whatever the stage freezes.
    abstract_params: () -> shapes and dtypes of what `init` returns.
    inherits: whether `train.init_from` applies to its parameters.
    constant: patterns of the paths of parameters that no stage trains.
    imported: of those that are published ones, which `init_from` leaves.
    samples: None for an objective that generates nothing.
  """

  init: Callable[..., Any]
  draw: Callable[..., Any]
  loss: Callable[..., Any]
  validate: Callable[..., Any]
  preview: Callable[..., Any]
  excluded_paths: Callable[[bool], tuple[str, ...]]
  abstract_params: Callable[[], Any]
  inherits: bool
  constant: tuple[str, ...]
  imported: tuple[str, ...]
  samples: Callable[..., Any] | None


def make_objective(
  config: ConfigDict,
  stage: ConfigDict,
  mesh: jax.sharding.Mesh,
  poll: Callable[[], None] = lambda: None,
) -> Objective:
  """Returns the objective of a stage.

  Args:
    config: the run's.
    stage: the stage's.
    mesh: see `sharding.make_mesh`.
    poll: called between the parts of what takes long; may raise.
  """
  make = {'autoencoder': autoencoder, 'diffusion': diffusion}
  return make[stage.objective](config, stage, mesh, poll)


def row_keys(key, rows):
  """One key a row, so that a row is the same in any part of a batch."""
  return jax.random.split(jax.random.fold_in(key, ROWS), rows)


def autoencoder(
  config: ConfigDict,
  stage: ConfigDict,
  mesh: jax.sharding.Mesh,
  poll: Callable[[], None],
) -> Objective:
  """Reconstruction, with a posterior sample a clip."""
  codec = autoencoders.make_autoencoder(config.autoencoder)
  dtype = jnp.dtype(config.train.compute_dtype)

  def init(key, clips):
    return codec.init(key, generate.to_float(clips['video']))

  def draw(batch, key):
    return {'video': batch['video'], 'key': row_keys(key, len(batch['video']))}

  def loss(params, frozen, rows):
    del frozen
    x = generate.to_float(rows['video']).astype(dtype)
    total, parts = codec.loss(params, x, rows['key'])
    count = jnp.float32(len(total))
    return total.sum(), count, {k: (v.sum(), count) for k, v in parts.items()}

  @jax.jit
  def reconstruct(params, video):
    x = generate.to_float(video)
    mean, _ = codec.encode(params, x.astype(dtype))
    y = codec.decode(params, mean).astype(jnp.float32)
    return generate.to_uint8(y), autoencoder_losses.psnr(x, y), mean

  def run(params, clips):
    return generate.batched(
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

  return Objective(
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


def diffusion(
  config: ConfigDict,
  stage: ConfigDict,
  mesh: jax.sharding.Mesh,
  poll: Callable[[], None],
) -> Objective:
  """Denoising of latents, one noise level a frame."""
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
      return cast(published.initial(config.model, network.init, key))
    return cast(jax.jit(network.init)(key))

  def encode(frozen, rows, sampled=False):
    """Normalised latents of rows of frames, or of rows of cached latents."""
    if 'video' in rows:
      x = generate.to_float(rows['video']).astype(dtype)
      mean, logvar = codec.encode(frozen['params'], x)
    else:
      mean, logvar = rows['mean'], rows.get('logvar')
    z = mean.astype(jnp.float32)
    if sampled:
      keys = process.fold_in(rows['key'], POSTERIOR)
      z = latents.sample(z, logvar, keys)
    return latents.normalise(z, frozen['stats'])

  def draw(batch, key):
    inputs = conditions.rest(batch)
    rows, frames = next(iter(inputs.values())).shape[:2]
    if 'video' in inputs:
      frames = generate.latent_shape(codec, frames, sizes.of(stage))[0]
    levels, loss_mask = losses.draw_levels(
      jax.random.fold_in(key, LEVELS),
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
      jax.random.fold_in(key, CONDITIONS),
      dict.fromkeys(conditions.SCALARS, config.model.scalar_dropout)
      | {'label': config.model.label_dropout}
      | {'text': config.model.text.dropout},
    )
    return {
      **inputs,
      **cond,
      'levels': levels,
      'loss_mask': loss_mask,
      'key': row_keys(key, rows),
    }

  def predict(params, x0, rows, dropout_key=None):
    eps = process.noise(process.fold_in(rows['key'], NOISE), x0.shape)
    z = process.add_noise(x0, eps, rows['levels'])
    output = network.apply(
      *(params, z.astype(dtype), rows['levels'], conditions.of(rows)),
      key=dropout_key,
    )
    return losses.loss(
      options.prediction,
      output,
      x0,
      eps,
      rows['levels'],
      rows['loss_mask'],
      options.weighting,
    )

  def loss(params, frozen, rows):
    x0 = encode(frozen, rows, sampled=options.sample_posterior)
    x0 = jax.lax.stop_gradient(x0)
    keys = process.fold_in(rows['key'], DROPOUT)
    total, count, frames = predict(
      params, x0, rows, keys if config.model.dropout else None
    )
    bins = losses.level_bins(
      rows['levels'], frames, rows['loss_mask'], options.bin_edges
    )
    names = bin_names(options.bin_edges)
    return (
      total,
      count,
      {name: (bins[0][i], bins[1][i]) for i, name in enumerate(names)},
    )

  @functools.partial(jax.jit, static_argnames='total')
  def losses_at(params, frozen, video, cond, index, level, total):
    x0 = encode(frozen, {'video': video})
    keys = jax.random.split(jax.random.key(config.seed), total)[index]
    rows = {
      'levels': jnp.full(x0.shape[:2], level),
      'loss_mask': jnp.ones(x0.shape[:2]),
      'key': keys,
      **cond,
    }
    weight = losses.weight(options.weighting, level)
    of_zero = weight * jnp.mean(jnp.square(x0), axis=(1, 2, 3, 4))
    return predict(params, x0, rows)[2].mean(axis=1), of_zero

  def validate(params, frozen, clips):
    results = {}
    total = len(clips['video'])
    # Without conditions, and with those of the clips.
    cond = conditions.of(clips)
    given = {'val_loss': conditions.null(cond)}
    if name := rules.told_loss(config.model):
      given[name] = cond
    for name, cond in given.items():
      numbered = (clips['video'], cond, np.arange(total))
      for level in options.eval_levels:
        sums = np.zeros(2)
        for rows, n in generate.chunks(numbered, stage.batch, mesh):
          out = losses_at(params, frozen, *rows, level, total)
          sums += [x[:n].sum() for x in arrays.to_host(out)]
          poll()
        mean = sums / total
        results[f'{name}/logsnr_{level:+g}'] = float(mean[0])
        results[f'val_loss_of_zero/logsnr_{level:+g}'] = float(mean[1])
      results[name] = float(
        np.mean([v for k, v in results.items() if f'{name}/' in k])
      )
    return results

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

  def excluded_paths(single_frames):
    return (unet.TEMPORAL,) if single_frames else ()

  return Objective(
    init=init,
    draw=draw,
    loss=loss,
    validate=validate,
    preview=preview,
    excluded_paths=excluded_paths,
    abstract_params=lambda: jax.eval_shape(cast, network.abstract_params()),
    inherits=True,
    constant=constant,
    imported=(inflated.IMAGE,) if config.model.weights else (),
    samples=samples,
  )


def bin_names(edges: tuple[float, ...]) -> list[str]:
  """Returns the names of the loss by noise level, the noisiest first."""
  bounds = ['-inf', *(f'{edge:+g}' for edge in edges), '+inf']
  return [
    f'loss/logsnr_{low}_to_{high}' for low, high in itertools.pairwise(bounds)
  ]
