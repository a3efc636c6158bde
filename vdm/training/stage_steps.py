"""The compiled steps of one stage: on clips, and on their single frames."""

import time

from absl import logging
import numpy as np

from vdm.multihost import arrays
from vdm.training import flops
from vdm.training import inputs
from vdm.training import stages
from vdm.training import streams
from vdm.training import train_step


class StageSteps:
  """Does a stage's steps, each compiled when it is first needed.

  Attributes:
    trained: paths that the step on clips trains, and that on single frames.
    frozen: the autoencoder that the stage's objective works in.
    host_key: the stage's key, on this host.
    tflops: of the last step, over the global batch.
  """

  def __init__(self, config, mesh, span, objective, frozen, state):
    self.config, self.mesh, self.span = config, mesh, span
    self.objective, self.frozen = objective, frozen
    self.host_key = streams.stream(config, 'stage', span.name)
    self.key = arrays.copies(mesh, self.host_key)
    alone = span.stage.frames == 1
    self.trained = [
      stages.trained_paths(
        state.params, span.stage, objective.held(single or alone)
      )
      for single in (False, True)
    ]
    self.tflops = 0.0
    self._compiled = {}

  def __call__(self, state, batch, n):
    """Step n of the stage, from 0.

    Args:
      state: `state.TrainState`, donated.
      batch: this host's rows, NumPy.
      n: which step.

    Returns:
      (state, metrics, cost): cost says what was compiled for it, if anything.
    """
    single, arguments = self.arguments(batch, n)
    arguments = (state, *arguments)
    cost = {}
    if single not in self._compiled:
      self._compiled[single], cost = self._compile(single, arguments)
    compiled, self.tflops = self._compiled[single]
    return *compiled(*arguments), cost

  def arguments(self, batch, n):
    """What step n is given beside the state.

    Returns:
      (single, (frozen, batch, n, key)): whether it is made on single frames,
      and global arrays.
    """
    single = stages.on_single_frames(self.span.stage, n)
    if single:
      batch = inputs.as_single_frames(batch)
    return single, (
      self.frozen,
      arrays.to_global(self.mesh, batch),
      arrays.copies(self.mesh, np.int32(n)),
      self.key,
    )

  def _compile(self, single, arguments):
    began = time.perf_counter()
    step = train_step.make_train_step(
      self.config,
      self.span.stage,
      self.objective,
      self.trained[single],
      self.mesh,
      arguments[0],
    )
    tflops = flops.count_flops(step, *arguments) / 1e12
    compiled = step.lower(*arguments).compile()
    cost = {
      'compile_seconds': time.perf_counter() - began,
      'tflops_per_step': tflops,
    }
    logging.info(
      '%s: compiled a step%s in %.1f s, %.3g TFLOP',
      self.span.name,
      ' on single frames' if single else '',
      *cost.values(),
    )
    return (compiled, tflops), cost
