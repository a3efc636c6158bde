"""Networks as functions over plain nested dicts of arrays.

Only this package knows flax. Outside it a network is `init(key) -> params`
and `apply(params, ...)`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import nnx

from vdm.models import unet


class Network(NamedTuple):
  """A network's two functions.

  Attributes:
    init: key -> nested dict of float32 parameters.
    apply: (params, z, levels, cond, key=None) -> output; see `unet.UNet`.
  """

  init: Callable[..., Any]
  apply: Callable[..., Any]


def make_unet(config, channels):
  """Builds the network of `config.model` for latents of `channels`."""
  options = {k: v for k, v in config.items() if k != 'label_dropout'}

  def build(key):
    return unet.UNet(channels, rngs=nnx.Rngs(params=key), **options)

  return functional(build)


def functional(build):
  """Turns `build(key) -> nnx.Module` into a `Network`."""
  graphdef = nnx.graphdef(nnx.eval_shape(lambda: build(0)))

  def init(key):
    return nnx.to_pure_dict(nnx.state(build(key)))

  def apply(params, *args, **kwargs):
    return nnx.merge(graphdef, params)(*args, **kwargs)

  return Network(init, apply)
