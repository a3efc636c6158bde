"""Rules of a published image model, and which of its parameters never change.

As in `rules`, each problem is one sentence. What its description decides is in
`vdm.models.image_unets.published`.
"""

from collections.abc import Iterator, Mapping
import re
from typing import Any

from ml_collections import ConfigDict

from vdm.config import schema

# Path of the empty prompt's tokens, which are data, and its pattern.
NULL_TEXT_PATH = 'null_text'
NULL_TEXT = f'^{NULL_TEXT_PATH}$'
# Keys of `config.model` that are of no other kind.
KEYS = ('weights', 'weights_sha256', 'architecture', 'adapter_rank')


def is_published(model: ConfigDict) -> bool:
  """Returns whether a network is a published image model that moves."""
  return model.kind not in ('unet', 'transformer')


def problems(model: ConfigDict) -> Iterator[str]:
  """Yields what is wrong in `config.model`, one sentence per problem."""
  given = [x for x in KEYS if model[x]]
  if given and not is_published(model):
    yield (
      f'config.model.{given[0]} is of published image models, and '
      f'kind={model.kind} is none of them: set config.model.kind.'
    )
  scaled = schema.changed('model', model, ('adapter_alpha',))
  if scaled and not model.adapter_rank:
    yield (
      f'config.model.adapter_alpha={model.adapter_alpha:g} scales adapters, '
      'and config.model.adapter_rank=0 makes none: set adapter_rank above 0, '
      f'or leave adapter_alpha at {scaled["adapter_alpha"]:g}.'
    )
  if is_published(model) and not (model.weights or model.architecture):
    yield (
      f'config.model.kind={model.kind} is a published image model: set '
      'config.model.weights to its file, see docs/image_models.md.'
    )
  if is_published(model) and model.convolution == 'full':
    yield (
      'config.model.convolution=full is of kind=unet: the branches of '
      'published image models are factorised.'
    )
  if not re.fullmatch(r'([0-9a-f]{64})?', model.weights_sha256):
    yield (
      f'config.model.weights_sha256={model.weights_sha256!r} is not a sha256: '
      'give the 64 hexadecimal digits that sha256sum prints.'
    )


def constant_patterns(config: ConfigDict) -> tuple[str, ...]:
  """Returns patterns of the paths of parameters that no stage trains.

  They are those of a published image model that every stage of the network
  freezes, and the empty prompt's tokens: these parameters have neither moments
  nor averages, in memory and on disk.
  """
  if not is_published(config.model):
    return ()
  stages = [config.stages[name] for name in config.train.order]
  frozen = [set(s.frozen) for s in stages if s.objective != 'autoencoder']
  if not frozen:
    return ()
  text = {NULL_TEXT} if config.model.text.encoder != 'none' else set()
  return tuple(sorted(set.intersection(*frozen) | text))


def constant(config: ConfigDict, params: Mapping[str, Any]) -> dict[str, Any]:
  """Returns those of {path: array} that no stage trains."""
  patterns = constant_patterns(config)
  return {
    path: x
    for path, x in params.items()
    if any(re.search(pattern, path) for pattern in patterns)
  }
