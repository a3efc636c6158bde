"""What a stage's step needs, counted without compiling anything.

Parameters, the training state and operations are exact. Memory is estimated:

  peak = state + gradients + frozen + rows * bytes that the backward pass keeps

The last are what matrix products and convolutions of the forward pass read and
write where gradients go through them, and the largest one without gradients,
see `kept_bytes`. A compiler fuses and needs workspace, so the sum is a guide
where no compiler is at hand.
"""

from collections.abc import Callable, Sequence
import functools
import math
from typing import Any, NamedTuple

import jax
from jax.extend import core
from ml_collections import ConfigDict

from vdm.common import trees
from vdm.models import attention
from vdm.training import autoencoder_stage
from vdm.training import flops
from vdm.training import inputs
from vdm.training import objectives
from vdm.training import packing
from vdm.training import sharding
from vdm.training import stages
from vdm.training import train_state
from vdm.training import train_step

# Names of primitives.
PRODUCTS = ('dot_general', 'conv_general_dilated')
LOOPS = ('scan', 'while')


class Cost(NamedTuple):
  """What one stage's step needs.

  Attributes:
    parameters: number of them.
    trained: of those, how many the step changes.
    state: bytes of parameters, averages and moments, over all devices.
    frozen: bytes of the autoencoder that the stage works in, on each device.
    tflop: 10^12 operations of a step over the global batch, the mean over
      steps on clips and on single frames.
    kept: bytes of one row of the batch: what the backward pass keeps, and the
      largest product that no gradient goes through.
    gradients: bytes of the gradients, on each device.
  """

  parameters: int
  trained: int
  state: int
  frozen: int
  tflop: float
  kept: float
  gradients: int


def find_span(config: ConfigDict, name: str) -> stages.Span:
  """Returns the span of a stage."""
  return next(span for span in stages.spans(config) if span.name == name)


def lowerable(
  config: ConfigDict,
  name: str,
  mesh: jax.sharding.Mesh,
  *,
  single: bool = False,
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
  """Returns the jitted step of a stage and abstract arguments to lower it with.

  Args:
    config: the run's.
    name: of the stage.
    mesh: of devices, which need not be there.
    single: the step on single frames.
  """
  span = find_span(config, name)
  objective, frozen = _objective(config, span, mesh)
  state = train_state.abstract(config.optim, objective, mesh)
  trained = train_step.trained_by(span.stage, objective, state.params)
  layout = packing.plan(state, trained, stages.rates(state.params, span.stage))
  packed = jax.eval_shape(functools.partial(packing.pack, layout), state)
  step = train_step.make_train_step(
    config.optim, span.stage, objective, layout, int(single), mesh, packed
  )
  batch = inputs.abstract_batch(config, span, single=single)
  return step, train_step.abstract_arguments(mesh, packed, frozen, batch)


@attention.traced_for('accelerator')
def count(config: ConfigDict, name: str) -> Cost:
  """Counts what a stage's step needs; see the module's docstring."""
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  span = find_span(config, name)
  objective, frozen = _objective(config, span, mesh)
  state = train_state.abstract(config.optim, objective, mesh)
  flat = trees.flatten(state.params)
  trained = train_step.trained_by(span.stage, objective, state.params)[0]
  share = span.stage.image_fraction if span.stage.frames > 1 else 0.0
  tflop = 0.0
  for single, weight in ((False, 1.0 - share), (True, share)):
    if weight:
      step, arguments = lowerable(config, name, mesh, single=single)
      tflop += weight * flops.count_flops(step, *arguments)
  return Cost(
    parameters=sum(x.size for x in flat.values()),
    trained=sum(flat[path].size for path in trained),
    state=size(state),
    frozen=size(frozen),
    tflop=tflop / 1e12,
    kept=kept(config, name),
    gradients=sum(4 * flat[path].size for path in trained),
  )


def estimated_peak(cost: Cost, rows: float, fsdp: int, parts: int) -> float:
  """Estimates the bytes of one device.

  Args:
    cost: of the stage.
    rows: of the batch, on one device.
    fsdp: devices over which the state is sharded.
    parts: in which the rows are processed, see `accumulate`.
  """
  sums = cost.gradients if parts > 1 else 0
  shared = (cost.state + cost.gradients) / fsdp + gathered(cost, fsdp)
  return shared + sums + cost.frozen + cost.kept * rows / parts


def gathered(cost: Cost, fsdp: int) -> int:
  """Returns the bytes of sharded parameters that a device has whole."""
  return 4 * cost.parameters if fsdp > 1 else 0


def size(tree: Any) -> int:
  """Returns the bytes of a tree of arrays or abstract arrays."""
  return sum(
    math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree)
  )


def _objective(config, span, mesh):
  objective = objectives.make_objective(config, span.stage, mesh)
  if span.stage.objective == 'autoencoder':
    return objective, {}
  frozen = autoencoder_stage.abstract(config.autoencoder)
  if span.stage.objective == 'consistency':
    frozen['teacher'] = objective.abstract_params()
  return objective, frozen


@attention.traced_for('accelerator')
def kept(config: ConfigDict, name: str) -> int:
  """Returns the bytes of a row that a step of a stage keeps.

  Parameters cancel in the difference between two rows and one.
  """
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  span = find_span(config, name)
  objective, frozen = _objective(config, span, mesh)
  params = objective.abstract_params()
  paths = set(train_step.trained_by(span.stage, objective, params)[0])
  is_trained = {path: path in paths for path in trees.flatten(params)}
  trained = jax.tree.leaves(trees.unflatten(is_trained))

  def forward(params, frozen, batch, key):
    return objective.loss(params, frozen, objective.draw(batch, key, 0))

  def of_rows(rows):
    stage = span.stage.copy_and_resolve_references().unlock()
    stage.batch = rows
    batch = inputs.abstract_batch(config, span._replace(stage=stage))
    key = jax.eval_shape(jax.random.key, 0)
    traced = jax.make_jaxpr(forward)(params, frozen, batch, key).jaxpr
    others = len(traced.invars) - len(trained)
    found = kept_bytes(traced, trained + [False] * others)
    return found.size + found.passing

  return of_rows(2) - of_rows(1)


class Kept(NamedTuple):
  """What a forward pass needs memory for.

  Attributes:
    size: bytes that the backward pass keeps.
    passing: bytes of the largest product that no gradient goes through, or of
      the largest part that is computed again: they are there while it runs.
    outputs: of each output, whether a trained value enters it.
  """

  size: int
  passing: int
  outputs: list[bool]


def kept_bytes(jaxpr: core.Jaxpr, trained: Sequence[bool]) -> Kept:
  """Counts the bytes of what products and convolutions read and write.

  Their gradients need what they read; what follows them, mostly a norm or a
  nonlinearity, needs what they wrote. All else is cheap to compute again, and
  compilers do. Of what is rematerialised, only the inputs are kept, and with
  a policy what products wrote. What no trained value enters has no gradient,
  and nothing of it is kept: an autoencoder that encodes, a teacher, a target.

  Args:
    jaxpr: of the forward pass.
    trained: of each input, whether gradients are taken with respect to it.
  """
  depends = {x for x, found in zip(jaxpr.invars, trained) if found}
  arrays, inner, passing = {}, 0, 0
  for equation in jaxpr.eqns:
    name, params = equation.primitive.name, equation.params
    entered = [_is_in(depends, x) for x in equation.invars]
    if not any(entered) or name == 'stop_gradient':
      passing = max(passing, _largest_product(equation))
      continue
    found, out = (), [True] * len(equation.outvars)
    if name in PRODUCTS:
      found = [*equation.invars, *equation.outvars]
    elif name in ('checkpoint', 'remat2') and params['policy'] is None:
      found = equation.invars
      for body in flops.inner_jaxprs(params):  # Computed again, one by one.
        passing = max(passing, kept_bytes(body, entered).size)
    for body in () if found else flops.inner_jaxprs(params):
      # In a loop, what is trained may come around to any input.
      once = name not in LOOPS and len(body.invars) == len(entered)
      inside = entered if once else [True] * len(body.invars)
      part = kept_bytes(body, inside)
      inner += part.size * (params['length'] if name == 'scan' else 1)
      passing = max(passing, part.passing)
      out = part.outputs if once else out
    arrays |= {id(x): x.aval for x in found if isinstance(x, core.Var)}
    depends |= {x for x, enters in zip(equation.outvars, out) if enters}
  total = inner + size([*arrays.values()])
  return Kept(total, passing, [_is_in(depends, x) for x in jaxpr.outvars])


def _largest_product(equation: core.JaxprEqn) -> int:
  """Returns the bytes that the largest product inside reads and writes."""
  if equation.primitive.name in PRODUCTS:
    values = [*equation.invars, *equation.outvars]
    return size([x.aval for x in values])
  return max(
    (
      _largest_product(one)
      for body in flops.inner_jaxprs(equation.params)
      for one in body.eqns
    ),
    default=0,
  )


def _is_in(variables: set[core.Var], x: Any) -> bool:
  return isinstance(x, core.Var) and x in variables
