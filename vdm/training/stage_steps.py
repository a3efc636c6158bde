"""The compiled steps of a stage, and what compiling them took."""

import time
from typing import Any

from absl import logging
import jax
from ml_collections import ConfigDict
import numpy as np

from vdm.multihost import arrays
from vdm.training import flops
from vdm.training import inputs
from vdm.training import objectives
from vdm.training import packing
from vdm.training import sharding
from vdm.training import stages
from vdm.training import throughput
from vdm.training import train_state
from vdm.training import train_step
from vdm.training.train_state import TrainState


class StageSteps:
  """The steps of one stage: on clips and on their single frames.

  Each of the two is compiled when it is first needed.

  Attributes:
    trained: paths that the step on clips trains, and that on single frames.
    frozen: the autoencoder that the stage's objective works in.
    key: the stage's, on the host.
    layout: how its state is packed.
    tflops: of the last step, over the global batch.
    cost: what compiling for the last step took, for the log; {} if nothing was
      compiled.
  """

  def __init__(
    self,
    options: ConfigDict,
    seed: int,
    mesh: jax.sharding.Mesh,
    span: stages.Span,
    objective: objectives.Objective,
    frozen: dict[str, Any],
    state: TrainState,
  ):
    """Compiles nothing yet.

    Args:
      options: `config.optim`.
      seed: the run's.
      mesh: see `sharding.make_mesh`.
      span: the stage.
      objective: the stage's.
      frozen: the autoencoder, on every device.
      state: that the stage begins with or resumes from, for its layout.
    """
    self.mesh, self.span = mesh, span
    self.objective, self.frozen = objective, frozen
    self.key = train_state.stream(seed, 'stage', span.name)
    self.trained = train_step.trained_by(span.stage, objective, state.params)
    self.layout = packing.plan(
      state, self.trained, stages.rates(state.params, span.stage)
    )
    self.tflops, self.cost = 0.0, {}
    self._options, self._compiled = options, {}
    self._device_key = arrays.replicate(mesh, self.key)

  def __call__(
    self, state: TrainState, batch: dict[str, np.ndarray], n: int
  ) -> tuple[TrainState, dict[str, Any]]:
    """Runs step n of the stage, counted from 0.

    Args:
      state: packed; donated.
      batch: this process's rows.
      n: which step.

    Returns:
      (state, metrics), see `train_step.make_train_step`.
    """
    single, inputs_of_step = self.arguments(batch, n)
    self.cost = {}
    if single not in self._compiled:
      self._compiled[single] = self._compile(single, state, inputs_of_step)
    compiled, self.tflops = self._compiled[single]
    return compiled(state, *inputs_of_step)

  def pack(self, state: TrainState) -> TrainState:
    """Returns a state as the steps take it; it shares arrays with `state`."""
    return sharding.place(self.mesh, packing.pack(self.layout, state))

  def unpack(self, state: TrainState) -> TrainState:
    """Returns a packed state as it is stored; it shares arrays with `state`."""
    return sharding.place(self.mesh, packing.unpack(self.layout, state))

  def arguments(
    self, batch: dict[str, np.ndarray], n: int
  ) -> tuple[bool, tuple[Any, ...]]:
    """Returns what step n takes besides the state.

    Returns:
      (single, (frozen, batch, n, key)): whether the step is on single frames,
      and global arrays.
    """
    single = stages.on_single_frames(self.span.stage, n)
    if single:
      batch = inputs.as_single_frames(batch, self.span.stage.images)
    return single, (
      self.frozen,
      arrays.to_global(self.mesh, batch),
      arrays.replicate(self.mesh, np.int32(n)),
      self._device_key,
    )

  def _compile(self, single, state, inputs_of_step):
    started = time.perf_counter()
    step = train_step.make_train_step(
      self._options,
      self.span.stage,
      self.objective,
      self.layout,
      int(single),
      self.mesh,
      state,
    )
    abstract = train_step.abstract_arguments(
      self.mesh, state, *inputs_of_step[:2]
    )
    tflops = flops.count_flops(step, *abstract) / 1e12
    compiled = step.lower(*abstract).compile()
    self.cost = {
      'compile_seconds': time.perf_counter() - started,
      'tflops_per_step': tflops,
    }
    logging.info(
      '%s: compiled a step%s in %.1f s, %.3g TFLOP, %s',
      self.span.name,
      ' on single frames' if single else '',
      *self.cost.values(),
      throughput.forecast(compiled),
    )
    return compiled, tflops
