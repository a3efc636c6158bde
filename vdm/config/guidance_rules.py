"""Scales of guidance: one for all, or one for each group of conditions.

`sample.guidance` is of labels and captions. `sample.guidance_by` gives groups
scales of their own, as in 'given=1.5,label=2,text=5'. Groups are told one after
the other in the order of `GROUPS`, from what a clip is to what is asked of it;
the maths are in `diffusion.guidance`. A group of scale 1 is told and not guided
by.
"""

from collections.abc import Iterator, Mapping
import math

from ml_collections import ConfigDict

from vdm.common import errors
from vdm.config import condition_rules
from vdm.config import suggest

GROUPS = ('frame_rate', 'motion', 'given', 'label', 'text')


def parse(text: str) -> dict[str, float]:
  """Returns {group: scale} of 'text=5,label=2', in the order of `GROUPS`.

  Raises:
    UsageError: it is something else.
  """
  found = {}
  for part in text.split(',') if text else ():
    name, equals, number = (x.strip() for x in part.partition('='))
    if not equals:
      raise errors.UsageError(
        f'guidance {text!r} is neither a number nor scales by group, as in '
        'label=2,text=5.'
      )
    if name not in GROUPS:
      raise errors.UsageError(
        f'guidance names {name!r}, which is no group of conditions'
        f'{suggest.hint(name, GROUPS)}'
      )
    if name in found:
      raise errors.UsageError(f'guidance names {name} twice.')
    found[name] = _scale(number, f'of {name} ')
  return _sorted(found)


def read(value: float | str) -> float | dict[str, float]:
  """Returns what a person asked for: one scale, or {group: scale}.

  Raises:
    UsageError: it is neither.
  """
  if isinstance(value, str) and '=' in value:
    return parse(value)
  return _scale(value)


def show(scales: Mapping[str, float]) -> str:
  """Returns the text of scales by group, which `parse` reads."""
  return ','.join(f'{k}={x:.15g}' for k, x in _sorted(scales).items())


def change(sample: ConfigDict, value: float | str) -> None:
  """Changes `config.sample` in place to the guidance that is asked for.

  One scale is for all; scales by group are added to those that are there.

  Args:
    sample: `config.sample`.
    value: see `read`.
  """
  asked = read(value)
  if isinstance(asked, dict):
    sample.guidance_by = show(parse(sample.guidance_by) | asked)
  else:
    sample.update(guidance=asked, guidance_by='')


def scales(model: ConfigDict, sample: ConfigDict) -> dict[str, float]:
  """Returns {group: scale} of those that a network is guided by, in order.

  Args:
    model: `config.model`.
    sample: `config.sample`.
  """
  found = dict.fromkeys(condition_rules.guided_by(model), sample.guidance)
  found = _sorted(found | parse(sample.guidance_by))
  return {name: scale for name, scale in found.items() if scale != 1}


def words(model: ConfigDict, sample: ConfigDict) -> str:
  """Returns the guidance of a network in words: '2', or 'label=2,text=5'."""
  if not sample.guidance_by:
    return f'{condition_rules.guidance_scale(model, sample.guidance):g}'
  return show(scales(model, sample)) or '1'


def problems(
  model: ConfigDict, sample: ConfigDict, worse: bool = False
) -> Iterator[str]:
  """Yields why a network cannot be guided as `sample` says.

  Args:
    model: `config.model`.
    sample: `config.sample`.
    worse: whether it is guided against a worse network, and so by no group.
  """
  key = 'config.sample.guidance'
  if not sample.guidance_by:
    if not worse:
      yield from condition_rules.guidance_problems(model, sample.guidance, key)
    return
  if worse:
    yield (
      'Guidance against a worse model has one scale and no groups: give '
      f'guidance a number in place of {sample.guidance_by}.'
    )
    return
  key = f'{key}_by'
  try:
    named = parse(sample.guidance_by)
  except errors.UsageError as error:
    yield f'{key}: {error}'
    return
  known = (*model.scalars, 'given', *condition_rules.guided_by(model))
  for name in named:
    if name not in known:
      yield (
        f'{key}={sample.guidance_by} names {name}, which the network is not '
        f'told: leave it out, or name one of {", ".join(known)}.'
      )
  yield from condition_rules.guidance_problems(
    model, scales(model, sample), key
  )


def autoguide_problems(config: ConfigDict) -> Iterator[str]:
  """Yields why there is no average that `sample.autoguide` guides against."""
  asked = config.sample.autoguide
  steps = {
    name: config.stages[name].steps
    for name in config.train.order
    if name in config.stages
    and config.stages[name].objective in ('diffusion', 'tokens')
  }
  if asked and steps and asked >= max(steps.values()):
    name = max(steps, key=steps.get)
    yield (
      f'config.sample.autoguide={asked} guides against the average after '
      f'{asked} updates, and stage {name} has {steps[name]}: take fewer, or 0.'
    )


def given_problems(stage: ConfigDict, sample: ConfigDict) -> Iterator[str]:
  """Yields why a stage's network cannot be guided by given frames.

  Args:
    stage: of the network; one of single frames is given none.
    sample: `config.sample`.
  """
  if parse(sample.guidance_by).get('given', 1) == 1:
    return
  what = f'config.sample.guidance_by={sample.guidance_by}'
  if stage.objective == 'tokens':
    yield (
      f'{what} shows a network noise in place of given frames, and masked '
      'tokens have none: leave given out.'
    )
  elif stage.frames > 1 and not stage.frame_levels.independent:
    yield (
      f'{what} shows the network given frames that are pure noise, which it '
      'has never seen: train it with config.stages.<name>.frame_levels.'
      'independent above 0, such as 0.3, or leave given out.'
    )


def _scale(value: float | str, whose: str = '') -> float:
  try:
    number = float(value)
  except ValueError:
    raise errors.UsageError(
      f'guidance {whose}{value!r} is neither a number nor scales by group, as '
      'in label=2,text=5.'
    ) from None
  if not 0 <= number < math.inf:
    raise errors.UsageError(
      f'guidance {whose}{value} is not a number of at least 0.'
    )
  return number


def _sorted(named: Mapping[str, float]) -> dict[str, float]:
  return {name: named[name] for name in GROUPS if name in named}
