"""Networks as functions over plain nested dicts of arrays.

Only this room imports flax: inside, a network is a flax.nnx module. Here are
the denoiser (`unet`, made of `unet_blocks`, `attention` and `layers`), the
`autoencoders`, the networks of metrics (`features`) and the readers of
published weights (`import_weights`). `generate`, `training` and `evaluation`
call them; `diffusion` and `metrics` receive them as functions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import nnx
import jax
from ml_collections import ConfigDict

from vdm.models import unet


class Network(NamedTuple):
  """The functions of a network.

  Attributes:
    init: key -> nested dict of float32 parameters.
    apply: (params, *inputs) -> output, as the module's `__call__`.
  """

  init: Callable[..., dict[str, Any]]
  apply: Callable[..., Any]

  def abstract_params(self) -> dict[str, Any]:
    """Returns the shapes and dtypes of the parameters."""
    return jax.eval_shape(self.init, jax.random.key(0))


def make_unet(config: ConfigDict, channels: int) -> Network:
  """Builds the denoiser of `config.model` for latents of `channels`."""
  options = config.to_dict()
  del options['label_dropout']  # Of the objective.
  text = options.pop('text')
  if text['encoder'] != 'none':
    options['text'] = {
      'encoder': text['encoder'],
      'width': text['width'],
      'depth': text['layers'],
      'head_size': options['head_size'],
      'vocabulary_size': text['vocabulary'],
      'features': text['features'],
    }
  return functional(unet.UNet, channels, **options)


def functional(
  module: Callable[..., nnx.Module], *args: Any, **kwargs: Any
) -> Network:
  """Returns the functions of `module(*args, **kwargs, rngs=...)`."""

  def build(key):
    return module(*args, **kwargs, rngs=nnx.Rngs(params=key))

  graphdef = nnx.graphdef(nnx.eval_shape(lambda: build(0)))

  def init(key):
    return nnx.to_pure_dict(nnx.state(build(key)))

  def apply(params, *args, **kwargs):
    return nnx.merge(graphdef, params)(*args, **kwargs)

  return Network(init, apply)
