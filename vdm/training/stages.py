"""What the order of the stages means for steps and parameters.

One global step counts through all stages. Between two stages, and nowhere else:

  objective changes   new parameters, moments and averages; the autoencoder
                      is frozen and written; a consistency stage begins with
                      the average of the diffusion stage, which is its teacher
  same objective      parameters, moments and averages carry over, each
                      parameter's own; the averages keep counting its updates
  always              the learning rate starts again at the stage's warm-up

A frozen parameter keeps its value, its moments and its averages. Parameters
of the temporal branches exist from the first diffusion stage on; a step on
single frames does not change them either.
"""

from collections.abc import Sequence
import re
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from vdm.common import sizes
from vdm.common import trees


class Span(NamedTuple):
  """A stage and the global steps it covers.

  Attributes:
    name: of the stage.
    stage: its config.
    start: global step before its first.
    stop: global step after its last.
  """

  name: str
  stage: ConfigDict
  start: int
  stop: int


def spans(config: ConfigDict) -> list[Span]:
  """Returns the stages of a run in the order in which they run."""
  found, start = [], 0
  for name in config.train.order:
    stage = config.stages[name]
    found.append(Span(name, stage, start, start + stage.steps))
    start += stage.steps
  return found


def on_single_frames(stage: ConfigDict, n: int) -> bool:
  """Returns whether step n of a stage splits its clips into single frames.

  Chosen from the step alone, and evenly: any k steps in a row hold k times
  `image_fraction` of them, to within one.
  """
  share = stage.image_fraction
  return stage.frames > 1 and int((n + 1) * share) > int(n * share)


def trained_paths(
  params: dict[str, Any], stage: ConfigDict, excluded: Sequence[str]
) -> list[str]:
  """Returns the paths of the parameters that a step may change, sorted.

  Args:
    params: nested dict of arrays.
    stage: its config; `frozen` are regular expressions searched in paths.
    excluded: further patterns, which need not match; see
      `objectives.Objective`.

  Raises:
    ValueError: a pattern of `frozen` matches no parameter, or all are frozen.
  """
  paths = list(trees.flatten(params))
  for pattern in stage.frozen:
    if not any(re.search(pattern, path) for path in paths):
      raise ValueError(
        f'frozen={pattern!r} matches no parameter: paths look like '
        f'{paths[0]!r} and {paths[-1]!r}.'
      )
  free = without(paths, (*stage.frozen, *excluded))
  if not free:
    raise ValueError(f'frozen={tuple(stage.frozen)} leaves nothing to train.')
  return free


def rates(params: dict[str, Any], stage: ConfigDict) -> dict[str, float]:
  """Returns {path: factor on its learning rate} where it is not 1.

  Args:
    params: nested dict of arrays.
    stage: its config; the first pattern of `rates` that is found counts.

  Raises:
    ValueError: a pattern matches nothing that the stage does not freeze.
  """
  free = without(list(trees.flatten(params)), stage.frozen)
  for pattern, _ in stage.rates:
    if not any(re.search(pattern, path) for path in free):
      raise ValueError(
        f'rates has {pattern!r}, which matches no parameter that is trained: '
        f'paths look like {free[0]!r} and {free[-1]!r}.'
      )
  found = {}
  for path in free:
    factors = [x for pattern, x in stage.rates if re.search(pattern, path)]
    if factors and factors[0] != 1:
      found[path] = float(factors[0])
  return found


def without(paths: Sequence[str], patterns: Sequence[str]) -> list[str]:
  """Returns the paths in which no pattern is found."""
  return [p for p in paths if not any(re.search(x, p) for x in patterns)]


def describe(
  span: Span,
  previous: Span | None,
  params: dict[str, Any],
  trained: Sequence[str],
) -> list[str]:
  """Returns sentences that say how a stage starts.

  Args:
    span: the stage.
    previous: the one before it, or itself if it is resumed; None at first.
    params: nested dict of arrays.
    trained: paths of those that the stage trains.
  """
  flat = trees.flatten(params)

  def size(paths):
    return sum(flat[p].size for p in paths)

  frames = '1 frame'
  if span.stage.frames > 1:
    frames = f'{span.stage.frames} frames'
  lines = [
    f'Stage {span.name}: steps {span.start} to {span.stop}, '
    f'{frames} of {sizes.text(sizes.of(span.stage))} px, batch '
    f'{span.stage.batch}; trains {size(trained):,} of {size(flat):,} '
    f'parameters, {len(flat) - len(trained)} of {len(flat)} arrays frozen.'
  ]
  if previous is not None and previous.name == span.name:
    lines.append(
      'Resumed: parameters, moments and averages are those of the checkpoint; '
      "the learning rate continues in the stage's schedule."
    )
  elif previous is None or previous.stage.objective != span.stage.objective:
    if span.stage.objective == 'consistency':
      lines.append('Parameters are the teacher; moments and averages are new.')
    else:
      lines.append('Parameters, moments and averages are new.')
  else:
    lines.append(
      f'Parameters, moments and averages carry over from {previous.name}; '
      'the learning rate warms up again.'
    )
  for pattern, factor in span.stage.rates:
    lines.append(f'Learns at {factor:g} times the rate: {pattern}.')
  return lines
