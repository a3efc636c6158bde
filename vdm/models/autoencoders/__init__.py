"""Autoencoders: from clips to the latents of diffusion, and back.

An autoencoder is a set of functions of a plain nested dict of arrays. It is
trained in the first stage of a run, taken from another run or published with
its weights (`pretrained`), then frozen on disk (`files`) together with the
statistics of its latents (`latents`). Each kind has a module here, with its
`losses` and `discriminator`. `training`, `generate` and `evaluation` build them
with `make_autoencoder`; only this sub-room knows the kinds.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

from etils.array_types import FloatArray
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vdm.models.autoencoders import autoencoder_kl
from vdm.models.autoencoders import discriminator
from vdm.models.autoencoders import identity
from vdm.models.autoencoders import kl
from vdm.models.autoencoders import pca
from vdm.models.autoencoders import tiny


@dataclasses.dataclass(frozen=True)
class Autoencoder:
  """The functions of an autoencoder, which compute in the dtype of x and z.

  Attributes:
    factor: (t, h, w), pixels per latent along each axis.
    channels: of a latent.
    init: (key, clips float32 [n t h w 3] in [-1, 1]) -> params. Not traceable:
      what has a closed form is fitted on the host. None for published
      parameters, see `pretrained.load`.
    abstract_params: () -> shapes and dtypes of what `init` returns; None for
      published parameters.
    encode: (params, x [b t h w 3]) -> mean and log-variance, both of the shape
      of z [b t/factor h/factor w/factor channels].
    decode: (params, z) -> x, not clipped.
    loss: (params, x, keys [b]) -> total [b] and a dict of its terms [b]; None
      if there is nothing to train.
    excluded_paths: single_frames -> patterns of the paths of parameters that
      training does not update.
    levels: number of values of each channel if latents are codes, see `fsq`.
  """

  factor: tuple[int, int, int]
  channels: int
  init: Callable[..., dict[str, Any]] | None
  encode: Callable[..., Any]
  decode: Callable[..., FloatArray['b t h w 3']]
  abstract_params: Callable[[], dict[str, Any]] | None = None
  loss: Callable[..., Any] | None = None
  excluded_paths: Callable[[bool], tuple[str, ...]] = lambda single_frames: ()
  levels: tuple[int, ...] = ()


def make_autoencoder(config: ConfigDict) -> Autoencoder:
  """Builds the autoencoder of `config.autoencoder`."""
  make = {
    'kl': _make_kl,
    'pca': _make_pca,
    'identity': _make_identity,
    'tiny': _make_tiny,
    'autoencoder_kl': _make_autoencoder_kl,
  }
  if config.kind not in make:
    raise ValueError(
      f'autoencoder.kind is one of {", ".join(make)}, not {config.kind!r}.'
    )
  return make[config.kind](config)


def _make_identity(config) -> Autoencoder:
  del config
  return Autoencoder(
    factor=(1, 1, 1),
    channels=3,
    init=identity.init,
    encode=identity.encode,
    decode=identity.decode,
    abstract_params=dict,
  )


def _make_pca(config) -> Autoencoder:
  time = config.get('time_factor', 1)
  sizes = config.factor, config.channels, time
  init, encode, decode = pca.make(*sizes)
  return Autoencoder(
    factor=(time, config.factor, config.factor),
    channels=config.channels,
    init=init,
    encode=encode,
    decode=decode,
    abstract_params=lambda: pca.abstract(*sizes),
  )


def _make_tiny(config) -> Autoencoder:
  return Autoencoder(
    factor=(1, config.factor, config.factor),
    channels=config.channels,
    init=None,
    encode=tiny.encode,
    decode=_frame_by_frame(tiny.decode),
  )


def _make_autoencoder_kl(config) -> Autoencoder:
  encode, decode = autoencoder_kl.make(
    config.scaling_factor,
    config.shift_factor,
    # Files of before there was this key are of networks of 32.
    groups=config.get('norm_groups', 0) or autoencoder_kl.GROUPS,
  )
  return Autoencoder(
    factor=(1, config.factor, config.factor),
    channels=config.channels,
    init=None,
    encode=encode,
    decode=_frame_by_frame(decode),
  )


def _frame_by_frame(decode: Callable[..., Any]) -> Callable[..., Any]:
  """Returns a decoder that has one frame of each clip in memory at a time.

  Of latents of 32 x 32, SD's decoder takes 0.2 GiB a frame: 24 GiB for eight
  clips of 16 frames at once. Rows stay on the devices that they are on.
  """

  def decode_clips(params, z):
    frames = jax.lax.map(
      lambda frame: decode(params, frame[:, None])[:, 0], jnp.moveaxis(z, 1, 0)
    )
    return jnp.moveaxis(frames, 0, 1)

  return decode_clips


def _make_kl(config) -> Autoencoder:
  levels = tuple(config.levels) if config.bottleneck == 'fsq' else ()
  # Files of before there was this key are of one frame a latent.
  time = config.get('time_factor', 1)
  init, encode, decode, abstract = kl.make(
    config.factor,
    config.channels,
    time=time,
    encoder=(config.encoder_width, config.encoder_blocks),
    decoder=(config.decoder_width, config.decoder_blocks),
    logvar=config.initial_logvar,
    temporal=config.decoder_temporal,
    levels=levels,
  )
  # Old files of autoencoders have no settings of a discriminator.
  adversarial_weight = config.get('adversarial_weight', 0.0)
  critic = discriminator.make(config.get('discriminator_width', 32))
  weights = {
    'l1': config.l1_weight,
    'l2': config.l2_weight,
    'multiscale': config.multiscale_weight,
    'kl': config.kl_weight,
    'equivariance': config.equivariance_weight,
    'adversarial': adversarial_weight,
  }

  def init_both(key, clips):
    params = init(key, clips)
    if adversarial_weight:
      params[discriminator.NAME] = critic.init(jax.random.fold_in(key, 2))
    return params

  def abstract_both():
    params = abstract()
    if adversarial_weight:
      params[discriminator.NAME] = critic.abstract_params()
    return params

  return Autoencoder(
    factor=(time, config.factor, config.factor),
    channels=config.channels,
    init=init_both,
    encode=encode,
    decode=decode,
    abstract_params=abstract_both,
    loss=kl.make_loss(
      encode,
      decode,
      quantised=bool(levels),
      weights=weights,
      discriminate=critic.apply,
    ),
    excluded_paths=lambda single_frames: (
      (kl.FITTED, kl.TEMPORAL) if single_frames else (kl.FITTED,)
    ),
    levels=levels,
  )
