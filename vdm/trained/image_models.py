"""The image model of a trained model, in place of its own or where none is.

An export of branches has what was trained beside a published image model and
not that model itself: its file is named when the export is read.
"""

from ml_collections import ConfigDict

from vdm import models
from vdm.common import errors
from vdm.config import image_model_rules
from vdm.models import autoencoders
from vdm.models.image_unets import inflated
from vdm.models.image_unets import published
from vdm.trained import model


def is_branches(found: model.Model) -> bool:
  """Returns whether the image model is missing in a trained model."""
  published_one = image_model_rules.is_published(found.config.model)
  return published_one and inflated.GROUP not in found.params


def complete(found: model.Model, image_model: str = '') -> model.Model:
  """Returns a trained model with an image model.

  Args:
    found: may be without one.
    image_model: file of weights, as `config.model.weights`; '' for its own.

  Raises:
    UsageError: it has none and none is given; the file is of another network,
      or cannot be read; or the model is no published image model with branches.
  """
  if not image_model:
    if is_branches(found):
      raise errors.UsageError(
        f'{found.source} holds the branches of an image model alone: name the '
        'file of that model, as vdm.sample --image_model FILE does.'
      )
    return found
  options = _options(found, image_model)
  codec = autoencoders.make_autoencoder(found.config.autoencoder)
  shapes = models.make_unet(options, codec.channels).abstract_params()
  image = {inflated.GROUP: published.load(options, shapes[inflated.GROUP])}
  worse = found.worse
  if worse is not None:
    worse = worse._replace(params={**worse.params, **image})
  return found._replace(params={**found.params, **image}, worse=worse)


def _options(found: model.Model, image_model: str) -> ConfigDict:
  """Returns `config.model` with the file, whose description must be its own."""
  options = found.config.model
  if not image_model_rules.is_published(options):
    raise errors.UsageError(
      f'{found.source} has no published image model: leave --image_model out.'
    )
  options = options.copy_and_resolve_references()
  options.update(weights=image_model, weights_sha256='')
  return published.resolve(options)
