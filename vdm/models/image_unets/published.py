"""Published image models: from files of weights to parameters.

The description is the `config.json` beside the weights or
`config.model.architecture`, where it is kept from then on, so that a run or an
export needs neither file again. Everything has to agree: the description, the
names and shapes of all tensors, and the settings of the run.
"""

from collections.abc import Callable, Iterator
import itertools
from typing import Any

import jax
from ml_collections import ConfigDict
import numpy as np

from vdm.common import trees
from vdm.config import image_model_rules
from vdm.models import import_weights
from vdm.models.image_unets import conditional
from vdm.models.image_unets import description
from vdm.models.image_unets import inflated
from vdm.models.image_unets import names

# The scale of the latents of all models of SD's family.
SD_CHANNELS, SD_SCALING = 4, 0.18215
# Of a pipeline in diffusers' layout, from the folder of the weights.
SCHEDULER = '../scheduler/scheduler_config.json'
SHOWN = 3  # Differing tensors that an error names.


def resolve(options: ConfigDict, known: str = '') -> ConfigDict:
  """Fills in what the description of a published image model says.

  Args:
    options: `config.model`.
    known: the architecture that the run was started with, if it was.

  Returns:
    A copy with `architecture`, and `widths`, `blocks` and `attention_levels`
    of it.

  Raises:
    UsageError: there is no description, it is of a network that this cannot
      be, or it is not that of `options`.
  """
  if not image_model_rules.is_published(options):
    return options
  options = options.copy_and_resolve_references()
  given, found = options.architecture or known, _beside(options)
  if not given and not found:
    raise import_weights.WeightsError(
      f'There is no config.json beside {options.weights or "no weights"}: set '
      'config.model.architecture to the description of the network, as JSON.'
    )
  text = given or description.to_text(found)
  described = inflated.parse(options.kind, text)
  if given and found:
    other = inflated.parse(options.kind, description.to_text(found))
    for name, ours, theirs in _differences(described, other):
      raise import_weights.WeightsError(
        f'The config.json beside {options.weights} is of a network with '
        f'{name}={theirs}, and config.model.architecture has {ours}: leave the '
        'latter empty, or take other weights.'
      )
  options.architecture, sizes = text, described.sizes
  options.widths, options.blocks = sizes.widths, sizes.blocks
  options.attention_levels = tuple(
    i for i, attends in enumerate(sizes.down_attention) if attends
  )
  return options


def check(config: ConfigDict) -> None:
  """Checks a run against the description of its image model.

  Args:
    config: the run's, `model` resolved.

  Raises:
    WeightsError: one sentence about the first problem.
  """
  if not image_model_rules.is_published(config.model):
    return
  for problem in problems(config):
    raise import_weights.WeightsError(problem)


def problems(config: ConfigDict) -> Iterator[str]:
  """Yields what does not fit an image model, one sentence each."""
  model, autoencoder = config.model, config.autoencoder
  described = inflated.parse(model.kind, model.architecture)
  sizes, prediction = described.sizes, config.diffusion.prediction
  if prediction != described.prediction:
    yield (
      f'The image model predicts {described.prediction}: set '
      f'config.diffusion.prediction to that, not to {prediction}.'
    )
  if model.num_classes and sizes.classes not in (0, model.num_classes):
    yield (
      f'The image model knows {sizes.classes} labels: set '
      f'config.model.num_classes to that, or to 0, not to {model.num_classes}.'
    )
  channels = 3 if autoencoder.kind == 'identity' else autoencoder.channels
  if channels != sizes.channels:
    yield (
      f'The image model works on {sizes.channels} channels, and '
      f'config.autoencoder gives {channels}: take the autoencoder that it was '
      'trained with.'
    )
  # A network that is trained from nothing knows no latents yet.
  if autoencoder.scale != 'none' and model.weights and not autoencoder.load:
    yield (
      'The image model knows latents as its autoencoder gives them: set '
      f'config.autoencoder.scale=none, not {autoencoder.scale}.'
    )
  in_sd = model.kind == 'conditional' and sizes.channels == SD_CHANNELS
  if in_sd and autoencoder.kind == 'autoencoder_kl' and model.weights:
    found = autoencoder.scaling_factor, autoencoder.shift_factor
    if autoencoder.factor != 8 or found != (SD_SCALING, 0.0):
      yield (
        'The image model works on latents of factor 8, scaled by '
        f'{SD_SCALING}: set config.autoencoder.factor and scaling_factor to '
        'these and '
        f'shift_factor to 0, not to {autoencoder.factor}, {found[0]} and '
        f'{found[1]}.'
      )
  yield from _text_problems(model.text, described)


def _text_problems(text: ConfigDict, described: Any) -> Iterator[str]:
  width = described.text_width
  if not width and text.encoder != 'none':
    yield (
      'The image model attends to no text: set config.model.text.encoder=none.'
    )
  elif width and text.encoder != 'pretrained':
    yield (
      'The image model attends to text: set config.model.text.encoder='
      'pretrained, and its other keys as configs/inflate.py:sd15 does.'
    )
  elif width and text.features != width:
    yield (
      f'The image model attends to text of {width} channels: set '
      f'config.model.text.features to that, not to {text.features}, and name '
      'its own encoder.'
    )
  elif width and not text.padded:
    yield (
      'The image model was trained on captions with their padding: set '
      'config.model.text.padded=True.'
    )


def initial(
  options: ConfigDict,
  init: Callable[[jax.Array], dict[str, Any]],
  key: jax.Array,
) -> dict[str, Any]:
  """Returns the parameters of an inflated network with published weights.

  Args:
    options: `config.model`, resolved.
    init: of the network.
    key: of the initial values of temporal branches.
  """
  abstract = jax.eval_shape(init, key)

  @jax.jit
  def added(key):
    # The compiler drops the image model's initial values.
    return {name: x for name, x in init(key).items() if name != inflated.GROUP}

  image = load(options, abstract[inflated.GROUP])
  return {inflated.GROUP: image, **added(key)}


def load(options: ConfigDict, abstract: dict[str, Any]) -> dict[str, Any]:
  """Reads the weights that `config.model` names.

  Args:
    options: `config.model`, resolved.
    abstract: the image model's parameters, a nested dict of shapes.

  Returns:
    The parameters, a nested dict of float32 arrays.

  Raises:
    WeightsError: a file cannot be read, is not the expected one, or is of
      another network; the first tensors that differ are named.
  """
  files = import_weights.read_files(options.weights, options.weights_sha256)
  tensors = {k: v for file in files for k, v in file.tensors.items()}
  described = inflated.parse(options.kind, options.architecture)
  return trees.unflatten(
    to_ours(options.weights, described, tensors, trees.flatten(abstract))
  )


def to_ours(
  source: str,
  described: Any,
  tensors: dict[str, np.ndarray],
  flat: dict[str, Any],
) -> dict[str, np.ndarray]:
  """Returns published tensors under our paths.

  Args:
    source: named in errors.
    described: the network's `Description`.
    tensors: of the file, perhaps with those of other networks.
    flat: {path: abstract array} of the network.

  Raises:
    WeightsError: they are not exactly those of the network.
  """
  scheme, prefix = names.find_scheme(tensors)
  layers = names.table(described)
  if not scheme or scheme not in layers[0].names:
    raise import_weights.WeightsError(
      f'{source} has none of the names of such a network, such as '
      f'{" or ".join(layers[-1].names.values())}.weight.'
    )
  found = {
    name.removeprefix(prefix): array
    for name, array in tensors.items()
    if name.startswith(prefix)
  }
  expected = names.shapes(layers, scheme, flat)
  if getattr(described, 'variance', False):
    found = _without_variance(found, expected)
  different = [
    f'{name} is {_shape(found, name)} in the file and '
    f'{expected.get(name, "nothing")} in the description'
    for name in sorted(expected.keys() | found.keys())
    if name not in found
    or name not in expected
    or found[name].shape != expected[name]
  ]
  if different:
    more = len(different) - SHOWN
    raise import_weights.WeightsError(
      f'{source} is of another network than its description: '
      + '; '.join(itertools.islice(different, SHOWN))
      + (f'; and {more} more.' if more > 0 else '.')
    )
  return names.to_ours(layers, scheme, found)


def _shape(tensors, name):
  return tensors[name].shape if name in tensors else 'missing'


def _without_variance(tensors, expected):
  """Drops the second half of the last layer's channels, the variance."""
  tensors = dict(tensors)
  for name in ('out.2.weight', 'out.2.bias'):
    if name in tensors and len(tensors[name]) == 2 * expected[name][0]:
      tensors[name] = tensors[name][: expected[name][0]]
  return tensors


def _differences(ours, theirs):
  """Yields (name, ours, theirs) of what differs in two descriptions."""
  for name in ours._fields:
    left, right = getattr(ours, name), getattr(theirs, name)
    if name == 'sizes':
      yield from _differences(left, right)
    elif left != right:
      yield name, left, right


def _beside(options):
  """Returns the description beside the weights, {} if there is none."""
  if not options.weights:
    return {}
  source = options.weights.split(',')[0].strip()
  content = import_weights.read_config(source)
  if not content:
    return {}
  if options.kind == 'conditional' and 'prediction_type' not in content:
    scheduler = _scheduler(source)
    if not scheduler:
      raise import_weights.WeightsError(
        f'There is no {SCHEDULER} from the folder of {source}: add '
        'prediction_type, epsilon or v_prediction, to the config.json beside '
        'it.'
      )
    content = scheduler | content
  return content


def _scheduler(source):
  """Returns what the scheduler of a pipeline says of timesteps and outputs."""
  content = import_weights.read_config(source, SCHEDULER)
  if not content:
    return {}
  known = (
    *conditional.SCHEDULER,
    'trained_betas',
    'rescale_betas_zero_snr',
  )
  # Its default where it is left out, as in diffusers.
  found = {'prediction_type': 'epsilon'}
  return found | {k: content[k] for k in known if k in content}
