"""Networks as functions over plain nested dicts of arrays.

Only this room imports flax: inside, a network is a flax.nnx module. Here are
the denoiser (`unet`, made of `embedding`, `unet_blocks`, `attention` and
`layers`, or one of the published `image_unets` with temporal branches), the
`token_transformer` of the same layers, the `autoencoders`, the networks of
metrics (`features`) and the readers of published weights (`import_weights`).
`sampling`, `training` and `evaluation` call them; `diffusion` and `metrics`
receive them as functions.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from flax import nnx
import jax
from ml_collections import ConfigDict

from vdm.common import trees
from vdm.config import cascade_rules
from vdm.models import initial
from vdm.models import token_transformer
from vdm.models import tokens
from vdm.models import unet
from vdm.models.image_unets import adapters
from vdm.models.image_unets import inflated


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


def make_network(
  config: ConfigDict, channels: int, levels: Sequence[int]
) -> Network:
  """Builds the network of `config.model`.

  Args:
    config: `config.model`.
    channels: of the latents.
    levels: of their channels where they are codes, see `Autoencoder`.
  """
  if config.kind == 'transformer':
    return make_transformer(config, levels)
  return make_unet(config, channels)


def make_unet(config: ConfigDict, channels: int) -> Network:
  """Builds the denoiser of `config.model` for latents of `channels`."""
  if config.kind != 'unet':
    own = {name: config[name] for name in inflated.OPTIONS}
    own['text_length'] = config.text.length
    network = functional(inflated.Inflated, channels, **own)
    return _adapted(network, config) if config.adapter_rank else network
  own = {name: config[name] for name in unet.OPTIONS}
  own['text'] = text_options(config)
  if cascade_rules.is_told(config):
    # Latents, and which frames are known where not all of them are.
    own['low'] = channels + (config.low.time_factor > 1)
  return functional(unet.UNet, channels, **own)


def make_transformer(config: ConfigDict, levels: Sequence[int]) -> Network:
  """Builds the network of masked tokens, for codes of `levels`."""
  own = config.transformer.to_dict()
  groups = tokens.group(levels, own.pop('vocabulary'))
  own |= {name: config[name] for name in token_transformer.OPTIONS}
  own['text'] = text_options(config)
  return functional(token_transformer.TokenTransformer, groups, **own)


def text_options(config: ConfigDict) -> dict[str, Any] | None:
  """Returns the arguments of a `text.TextEncoder`; None: no captions."""
  text = config.text
  if text.encoder == 'none':
    return None
  return {
    'encoder': text.encoder,
    'width': text.width,
    'depth': text.layers,
    'head_size': config.head_size,
    'vocabulary_size': text.vocabulary,
    'features': text.features,
  }


def _adapted(network: Network, config: ConfigDict) -> Network:
  """Returns a network whose image model has adapters."""
  rank, alpha = config.adapter_rank, config.adapter_alpha

  def init(key):
    params = network.init(key)
    own = jax.random.fold_in(key, 1)
    made = adapters.init(own, params[inflated.GROUP], rank)
    return {**params, adapters.GROUP: made}

  def apply(params, *args, **kwargs):
    merged = adapters.merge(params, alpha)
    return network.apply(merged, *args, **kwargs)

  return Network(init, apply)


# Of what was asked for: a network, its parameters' names, what it draws.
_structures = {}


def functional(
  module: Callable[..., nnx.Module], *args: Any, **kwargs: Any
) -> Network:
  """Returns the functions of `module(*args, **kwargs, rngs=...)`.

  `apply` raises ValueError for parameters of other names: flax would take them
  in the order of their names.
  """

  def build(rngs):
    return module(*args, **kwargs, rngs=rngs)

  # A run asks for each of its networks about twenty times, and a large one
  # takes a second. Its functions are new ones, so that none of what jax has
  # traced for another platform is found again.
  asked = module, repr(args), repr(sorted(kwargs.items()))
  if asked not in _structures:
    shapes = initial.Shapes()
    graphdef, state = nnx.split(nnx.eval_shape(lambda: build(shapes)))
    names = trees.flatten(nnx.to_pure_dict(state)).keys()
    _structures[asked] = graphdef, names, shapes.found
  graphdef, names, drawn = _structures[asked]

  def init(key):
    return nnx.to_pure_dict(nnx.state(build(initial.draw(key, drawn))))

  def apply(params, *args, **kwargs):
    given = trees.flatten(params).keys()
    if given != names:
      raise ValueError(
        'These parameters are of another network, or of another version of '
        f'this package: missing {_first(names - given)}, and not known '
        f'{_first(given - names)}.'
      )
    return nnx.merge(graphdef, params)(*args, **kwargs)

  return Network(init, apply)


def _first(names):
  shown = ', '.join(sorted(names)[:3]) or 'none'
  return shown + (f' and {len(names) - 3} more' if len(names) > 3 else '')
