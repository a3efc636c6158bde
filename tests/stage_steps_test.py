"""A stage's steps: which kind each is, and what is compiled when."""

import jax
import numpy as np
import pytest
import tiny_runs

from vdm.multihost import arrays
from vdm.training import objectives
from vdm.training import sharding
from vdm.training import stage_steps
from vdm.training import stages
from vdm.training import train_state


@pytest.fixture(scope='module')
def steps_and_costs():
  """Four steps of a stage of which every second is on single frames."""
  config = tiny_runs.make_config(image_fraction=0.5)
  mesh = sharding.make_mesh(1, jax.devices()[:1])
  (span,) = stages.spans(config)
  objective = objectives.make_objective(config, span.stage, mesh)
  params = tiny_runs.randomise(objective.abstract_params())
  state = jax.device_put(
    train_state.create(config.optim, params), arrays.replicated(mesh)
  )
  frozen = jax.device_put(tiny_runs.autoencoder(), arrays.replicated(mesh))
  steps = stage_steps.StageSteps(
    config.optim, config.seed, mesh, span, objective, frozen, state
  )
  state = steps.pack(state)
  costs, tflops = [], []
  for n in range(4):
    state, _ = steps(state, tiny_runs.batch(), n)
    costs.append(steps.cost)
    tflops.append(steps.tflops)
  return steps, costs, tflops


def test_each_kind_of_step_is_compiled_once(steps_and_costs):
  _, costs, _ = steps_and_costs
  assert [bool(cost) for cost in costs] == [True, True, False, False]
  assert costs[0]['compile_seconds'] > 0


def test_clips_cost_more_than_their_frames(steps_and_costs):
  _, costs, tflops = steps_and_costs
  clips, frames = tflops[:2]
  assert tflops == [clips, frames, clips, frames]
  assert clips > frames > 0
  assert costs[1]['tflops_per_step'] == frames


def test_single_frames_train_all_but_time(steps_and_costs):
  steps, _, _ = steps_and_costs
  clips, frames = map(set, steps.trained)
  assert frames < clips
  assert all('temporal' in path for path in clips - frames)


@pytest.mark.parametrize('images', ['all', 'first'])
def test_a_step_on_images_takes_all_frames_or_the_first(
  steps_and_costs, images, monkeypatch
):
  steps, _, _ = steps_and_costs
  clips = tiny_runs.batch()['video']
  monkeypatch.setitem(steps.span.stage, 'images', images)
  single, (_, batch, _, _) = steps.arguments(tiny_runs.batch(), 1)
  taken = clips if images == 'all' else clips[:, :1]
  assert single
  np.testing.assert_array_equal(
    batch['video'], taken.reshape(-1, 1, *clips.shape[2:])
  )
