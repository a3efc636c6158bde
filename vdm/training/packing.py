"""The training state as a step holds it: fewer and larger arrays.

On disk and between stages a state has, for every parameter, its value, moments,
averages and the count of its updates: thousands of arrays for a network of some
hundred parameters, most of them so small that a device takes longer to start a
kernel than to run it. A step holds the same values in another arrangement of a
`TrainState`:

  params      {group: {name: array}}
  opt_state   {group: Slot(count, moments of {name: array})}
  ema         {width: {group: {name: array}}}

A group is of parameters that every step of the stage updates together, at one
rate, and that have been updated as often so far: they share one count. Those
that no stage trains are a group that has neither moments nor averages. In a
group, a large parameter, or a matrix of Muon's, is an array under its own path.
All others follow each other in one vector, `VECTORS`, or, where they have two
axes or more, in `MATRICES` of shape [1 n], which weight decay tells apart by
that.

What is computed for each value is the same in either arrangement.
"""

from collections.abc import Mapping, Sequence
import functools
import math
from typing import Any, NamedTuple

from etils.array_types import Array
import jax
import jax.numpy as jnp
import numpy as np

from vdm.common import trees
from vdm.multihost import arrays
from vdm.training import optim
from vdm.training import sharding
from vdm.training.train_state import TrainState

VECTORS, MATRICES = 'vectors', 'matrices'


class Group(NamedTuple):
  """Parameters with the same history.

  Attributes:
    trained: of each kind of step, whether it updates them.
    members: {name of an array: {path: shape of the parameter}}, in the order
      in which they follow each other in the array.
    rate: factor on the learning rate.
  """

  trained: tuple[bool, ...]
  members: dict[str, dict[str, tuple[int, ...]]]
  rate: float = 1.0


Layout = dict[str, Group]


def plan(
  state: TrainState,
  trained: Sequence[Sequence[str]],
  rates: Mapping[str, float] | None = None,
) -> Layout:
  """Returns how the steps of a stage hold a state.

  It depends on which counts are equal, which no step changes: a run that
  resumes has the program that it had before.

  Args:
    state: of arrays, or of abstract ones, whose counts are taken to be equal.
    trained: of each kind of step, the paths that it updates.
    rates: {path: factor on its learning rate} where it is not 1; None: all are.
  """
  flat, slots = trees.flatten(state.params), state.opt_state
  sets, counts = [set(paths) for paths in trained], _counts(slots)
  histories = {}
  for path in flat:
    held = tuple(path in paths for paths in sets)
    history = (held, None, None, 1.0)
    if path in slots:
      muon = optim.is_muon(slots[path])
      history = (held, (counts[path],), muon, (rates or {}).get(path, 1.0))
    histories.setdefault(history, []).append(path)
  layout = {}
  for (held, _, muon, rate), paths in histories.items():
    members = {}
    for path in paths:
      shape, name = flat[path].shape, path
      if not muon and math.prod(shape) < sharding.MIN_SHARDED_SIZE:
        name = MATRICES if len(shape) > 1 else VECTORS
      members.setdefault(name, {})[path] = shape
    layout[str(len(layout))] = Group(held, members, rate)
  return layout


def _counts(slots):
  """Returns {path: its counts}, all the same where they are abstract."""
  counts = {path: (s.count, s.moments.count) for path, s in slots.items()}
  if any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(counts)):
    return dict.fromkeys(counts)
  return jax.tree.map(int, arrays.to_host(counts))


def plain(params: dict[str, Any], trained: Sequence[str]) -> Layout:
  """Returns the layout that packs nothing, with one kind of step.

  Args:
    params: nested dict of arrays.
    trained: the paths that the step updates.
  """
  members = {True: {}, False: {}}
  for path, leaf in trees.flatten(params).items():
    members[path in trained][path] = {path: leaf.shape}
  return {
    str(held): Group((held,), own) for held, own in members.items() if own
  }


def selected(layout: Layout, kind: int) -> Layout:
  """Returns the groups that one kind of step updates."""
  return {key: g for key, g in layout.items() if g.trained[kind]}


def paths(layout: Layout) -> list[str]:
  """Returns the paths of all parameters in a layout, sorted."""
  return sorted(
    path
    for group in layout.values()
    for members in group.members.values()
    for path in members
  )


def join(
  layout: Layout, flat: dict[str, Array['...']]
) -> dict[str, dict[str, Array['...']]]:
  """Returns {path: array} as {group: {name: array}}."""
  return {key: _join_group(group, flat) for key, group in layout.items()}


def split(
  layout: Layout, packed: dict[str, dict[str, Array['...']]]
) -> dict[str, Array['...']]:
  """Returns {group: {name: array}} as {path: array}; undoes `join`."""
  flat = {}
  for key, group in layout.items():
    flat |= _split_group(group, packed[key])
  return flat


def pack(layout: Layout, state: TrainState) -> TrainState:
  """Returns a state as a step holds it."""
  slots, changing = {}, _changing(layout, state)
  for key, group in changing.items():
    members = {path: state.opt_state[path] for path in paths({key: group})}
    moments = {p: optim.fields(slot.moments) for p, slot in members.items()}
    count, first = next(iter(members.values()))
    joined = {
      field: _join_group(group, {p: own[field] for p, own in moments.items()})
      for field in optim.fields(first)
    }
    # Unpacked parameters share these arrays, and a step is given each once.
    own = {
      name: jax.tree.map(jnp.copy, value)
      for name, value in first._asdict().items()
      if name not in joined
    }
    slots[key] = optim.Slot(jnp.copy(count), first._replace(**own, **joined))
  return TrainState(
    params=join(layout, trees.flatten(state.params)),
    opt_state=slots,
    ema={width: join(changing, flat) for width, flat in state.ema.items()},
  )


def unpack(layout: Layout, packed: TrainState) -> TrainState:
  """Returns a state as it is stored; undoes `pack`."""
  slots = {}
  changing = {key: layout[key] for key in layout if key in packed.opt_state}
  for key, group in changing.items():
    count, moments = packed.opt_state[key]
    flat = {
      field: _split_group(group, joined)
      for field, joined in optim.fields(moments).items()
    }
    for path in paths({key: group}):
      own = {field: values[path] for field, values in flat.items()}
      slots[path] = optim.Slot(count, moments._replace(**own))
  return TrainState(
    params=trees.unflatten(split(layout, packed.params)),
    opt_state={path: slots[path] for path in paths(changing)},
    ema={width: split(changing, flat) for width, flat in packed.ema.items()},
  )


def _changing(layout, state):
  """Returns the groups of parameters that some stage trains."""
  return {
    key: group
    for key, group in layout.items()
    if paths({key: group})[0] in state.opt_state
  }


def _join_group(group, flat):
  joined = {}
  for name, members in group.members.items():
    if name not in (VECTORS, MATRICES):
      joined[name] = flat[name]
      continue
    joined[name] = _joined([flat[path] for path in members])
  return joined


def _split_group(group, joined):
  flat = {}
  for name, members in group.members.items():
    if name not in (VECTORS, MATRICES):
      flat[name] = joined[name]
      continue
    pieces = _pieces(joined[name], tuple(members.values()))
    flat |= dict(zip(members, pieces))
  return flat


# Compiled, for what is packed outside of a step.
@jax.jit
def _joined(parts):
  vector = jnp.concatenate([x.reshape(-1) for x in parts])
  return vector[None] if parts[0].ndim > 1 else vector


@functools.partial(jax.jit, static_argnums=1)
def _pieces(vector, shapes):
  ends = np.cumsum([math.prod(shape) for shape in shapes])
  vector = vector.reshape(-1)
  return [
    vector[end - math.prod(shape) : end].reshape(shape)
    for end, shape in zip(ends, shapes)
  ]
