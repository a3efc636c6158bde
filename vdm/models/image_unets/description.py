"""What the descriptions of both families have in common: strict reading."""

from collections.abc import Collection, Mapping
import json
from typing import Any, NoReturn

from vdm.common import errors


class DescriptionError(errors.UsageError):
  """A description is not of a network that this can be; one sentence."""


def refuse(name: str, value: Any) -> NoReturn:
  """Raises an error that names a key of a description."""
  raise DescriptionError(
    f'{name}={str(value)[:80]} in the description of an image model is not '
    'what vdm/models/image_unets can do: take another model.'
  )


def read(
  content: Mapping[str, Any],
  defaults: Mapping[str, Any],
  ignored: Collection[str] = (),
) -> dict[str, Any]:
  """Returns the values of a description, with defaults for those left out.

  Args:
    content: of it; names that begin with '_' are of its library.
    defaults: by name; a value has the type of its default.
    ignored: further names that are allowed.

  Raises:
    DescriptionError: a name is unknown, or a value of another type.
  """
  values = dict(defaults)
  for name, value in content.items():
    if name.startswith('_') or name in ignored:
      continue
    if name not in defaults:
      refuse(name, value)
    like = defaults[name]
    if isinstance(like, float) and type(value) is int:
      value = float(value)
    if type(value) is not type(like):
      refuse(name, value)
    values[name] = value
  return values


def to_text(content: Mapping[str, Any]) -> str:
  """Returns a description as `config.model.architecture` holds it."""
  kept = {k: v for k, v in content.items() if not k.startswith('_')}
  return json.dumps(kept, sort_keys=True, separators=(',', ':'))


def from_text(text: str) -> dict[str, Any]:
  """Returns the description of `config.model.architecture`.

  Raises:
    DescriptionError: it is not a JSON object.
  """
  try:
    content = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise DescriptionError(
      f'config.model.architecture is not JSON: {error}.'
    ) from None
  if not isinstance(content, dict):
    raise DescriptionError('config.model.architecture is not a JSON object.')
  return content
