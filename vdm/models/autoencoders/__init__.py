"""Autoencoders: from clips to the latents that diffusion works on, and back.

An autoencoder is functions over a plain nested dict of arrays. It is trained
in the first stage of a run or taken from another run, then frozen, together
with the statistics of its latents (`latents`), on disk (`files`).
"""

from collections.abc import Callable
import dataclasses
from typing import Any

from vdm.models.autoencoders import identity
from vdm.models.autoencoders import kl

KINDS = ('kl', 'identity')


@dataclasses.dataclass(frozen=True)
class Autoencoder:
  """An autoencoder's functions; x and z compute in the dtype they come in.

  Attributes:
    factor: (t, h, w), pixels a latent stands for along each axis.
    channels: of a latent.
    init: (key, clips [n, t, h, w, 3] float32 in [-1, 1]) -> parameters. Fits
      what has a closed form on the host: not to be traced.
    encode: (params, x [b, t, h, w, 3]) -> mean and log-variance, each
      [b, t', h', w', channels].
    decode: (params, z) -> x, not clipped.
    loss: (params, x, keys [b]) -> total [b] and a dict of its parts [b]; None
      where there is nothing to train.
  """

  factor: tuple[int, int, int]
  channels: int
  init: Callable[..., Any]
  encode: Callable[..., Any]
  decode: Callable[..., Any]
  loss: Callable[..., Any] | None


def make_autoencoder(config) -> Autoencoder:
  """Builds the autoencoder of `config.autoencoder`."""
  if config.kind == 'identity':
    return Autoencoder(
      factor=(1, 1, 1),
      channels=3,
      init=identity.init,
      encode=identity.encode,
      decode=identity.decode,
      loss=None,
    )
  if config.kind != 'kl':
    raise ValueError(
      f'autoencoder.kind is one of {", ".join(KINDS)}, not {config.kind!r}.'
    )
  init, encode, decode = kl.make(
    config.factor,
    config.channels,
    encoder=(config.encoder_width, config.encoder_blocks),
    decoder=(config.decoder_width, config.decoder_blocks),
  )
  return Autoencoder(
    factor=(1, config.factor, config.factor),
    channels=config.channels,
    init=init,
    encode=encode,
    decode=decode,
    loss=kl.make_loss(
      encode,
      decode,
      kl_weight=config.kl_weight,
      multiscale_weight=config.multiscale_weight,
    ),
  )
