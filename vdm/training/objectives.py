"""The objectives that there are, by the name that a stage gives."""

from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from vdm.config import sampling
from vdm.training import autoencoder_objective
from vdm.training import consistency_objective
from vdm.training import diffusion_objective
from vdm.training import objective
from vdm.training import tokens_objective

Objective, EARLIER = objective.Objective, objective.EARLIER
apart = objective.apart
MAKERS = {
  'autoencoder': autoencoder_objective.make,
  'diffusion': diffusion_objective.make,
  'consistency': consistency_objective.make,
  'tokens': tokens_objective.make,
}


def make_objective(
  config: ConfigDict,
  stage: ConfigDict,
  mesh: jax.sharding.Mesh,
  poll: Callable[[], None] = lambda: None,
) -> Objective:
  """Returns the objective of a stage.

  Args:
    config: the run's.
    stage: the stage's.
    mesh: see `sharding.make_mesh`.
    poll: called between the parts of what takes long; may raise.
  """
  config = sampling.of_stage(config, stage)
  return MAKERS[stage.objective](config, stage, mesh, poll)
