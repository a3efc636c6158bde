"""What a stage needs: counted, estimated, and asked of a compiler."""

import functools
import json
import subprocess
import sys

from conftest import ROOT
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from vdm.config import schema
from vdm.config import serialize
from vdm.planning import compiling
from vdm.planning import costs
from vdm.planning import data_rate
from vdm.planning import disk
from vdm.planning import fit
from vdm.planning import report
from vdm.planning import targets
from vdm.training import autoencoder_stage
from vdm.training import inputs
from vdm.training import objectives
from vdm.training import sharding
from vdm.training import stages
from vdm.training import train_state

GIB = 2**30


def shapes(tree):
  return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@pytest.fixture(scope='module')
def config():
  return tiny_runs.make_config(image_fraction=0.5)


def test_a_batch_is_as_planned(config):
  (span,) = stages.spans(config)
  batch = tiny_runs.batch()
  assert shapes(inputs.abstract_batch(config, span)) == shapes(batch)
  for images in ('all', 'first'):
    span.stage.images = images
    frames = shapes(inputs.as_single_frames(batch, images))
    assert shapes(inputs.abstract_batch(config, span, single=True)) == frames
  span.stage.images = 'all'


def test_cached_latents_are_as_planned(config):
  config = fit.changed(config, 'video')
  config.data.latents = 'a cache'
  config.autoencoder.update(kind='pca', factor=4, channels=5)
  (span,) = stages.spans(config)
  shape = (8, tiny_runs.FRAMES, 1, 1, 5)
  batch = inputs.abstract_batch(config, span)
  assert shapes(batch) == {
    'mean': (shape, np.float16),
    'label': ((8,), np.int32),
  }
  config.diffusion.sample_posterior = True
  assert 'logvar' in inputs.abstract_batch(config, span)


@pytest.mark.parametrize(
  'values',
  [
    dict(kind='identity'),
    dict(kind='pca', factor=8, channels=3),
    dict(kind='kl', factor=4, channels=6, adversarial_weight=0.1),
    dict(
      kind='kl', factor=4, channels=4, bottleneck='fsq', decoder_temporal=True
    ),
  ],
)
def test_autoencoders_are_as_planned(values, tmp_path):
  """The abstract one against the one that a run freezes and reads."""
  config = schema.default()
  config.autoencoder.update(
    encoder_width=4, decoder_width=4, decoder_blocks=1, **values
  )
  clips = tiny_runs.batch(rows=2, size=16)['video']
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  found, _ = autoencoder_stage.ensure(
    config.autoencoder, tmp_path, jax.random.key(0), lambda: clips, mesh
  )
  assert shapes(autoencoder_stage.abstract(config.autoencoder)) == shapes(found)


def test_the_state_is_as_planned(config):
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  objective = objectives.make_objective(config, config.stages.video, mesh)
  params = tiny_runs.randomise(objective.abstract_params())
  state = train_state.create(config.optim, params)
  assert shapes(train_state.abstract(config.optim, objective, mesh)) == shapes(
    state
  )
  cost = costs.count(config, 'video')
  assert cost.state == sum(x.nbytes for x in jax.tree.leaves(state))
  assert cost.parameters == sum(x.size for x in jax.tree.leaves(params))
  assert cost.gradients == 4 * cost.trained
  assert cost.frozen == 2 * 3 * 4


def test_kept_bytes_in_closed_form():
  """x [3 8] -> tanh(x w [8 5]) -> its square -> u [5 2], of trained w and u."""

  def forward(x, w, u):
    return jnp.square(jnp.tanh(x @ w)) @ u

  x, w, u = (jnp.zeros(s) for s in ((3, 8), (8, 5), (5, 2)))
  arrays = (3 * 8, 8 * 5, 3 * 5, 3 * 5, 5 * 2, 3 * 2)  # x w xw square u out.
  jaxpr = jax.make_jaxpr(forward)(x, w, u).jaxpr
  trained = [False, True, True]
  assert costs.kept_bytes(jaxpr, trained) == (4 * sum(arrays), 0, [True])
  # Of u alone, the first product is done with when the second begins.
  first, last = 4 * sum(arrays[:3]), 4 * sum(arrays[3:])
  assert costs.kept_bytes(jaxpr, [False, False, True]) == (last, first, [True])
  assert costs.kept_bytes(jaxpr, [False] * 3) == (0, first, [False])
  again = jax.make_jaxpr(jax.checkpoint(forward))(x, w, u).jaxpr
  kept = 4 * (3 * 8 + 8 * 5 + 5 * 2)
  assert costs.kept_bytes(again, trained) == (kept, 4 * sum(arrays), [True])


def test_no_gradient_keeps_nothing():
  def forward(w, x):
    def network(w):
      return jnp.tanh(x @ w).sum()

    return network(w) + jax.jit(network)(jax.lax.stop_gradient(w))

  w, x = jnp.zeros((8, 5)), jnp.zeros((3, 8))
  jaxpr = jax.make_jaxpr(forward)(w, x).jaxpr
  product = 4 * (3 * 8 + 8 * 5 + 3 * 5)
  found = costs.kept_bytes(jaxpr, [True, False])
  assert found == (product, product, [True])


def test_a_teacher_and_a_target_keep_nothing():
  """A consistency stage evaluates its network four times, and trains one."""
  diffusion, consistency = (
    costs.kept(tiny_runs.make_config(objective=name), 'video')
    for name in ('diffusion', 'consistency')
  )
  # The largest product of the teacher besides.
  assert diffusion < consistency < 2 * diffusion


def test_rows_cost_and_parts_save(config):
  cost = costs.count(config, 'video')
  peaks = [costs.estimated_peak(cost, rows, 1, 1) for rows in (0, 1, 2)]
  assert np.diff(peaks).tolist() == [cost.kept] * 2
  assert cost.kept > 0
  halved = costs.estimated_peak(cost, 64, 1, 2)
  assert halved == peaks[0] + cost.gradients + 32 * cost.kept
  # Sharded, and its parameters whole for the computation.
  sharded = costs.estimated_peak(cost, 0, 4, 1)
  parts = (cost.state + cost.gradients) / 4
  assert sharded == parts + cost.frozen + 4 * cost.parameters


def make_line(fixed, row):
  return fit.Line(fixed * GIB, row * GIB, 'compiled')


COST = costs.Cost(
  parameters=10**6,
  trained=10**6,
  state=4 * GIB,
  frozen=0,
  tflop=1.0,
  kept=GIB,
  gradients=GIB,
)


@pytest.mark.parametrize(
  ('line', 'batch', 'devices', 'found'),
  [
    # 18 GiB of a 4090: 2 rows of 8 fit, with the sum of gradients.
    ((5, 4), 8, 1, ['--config.stages.video.accumulate=4']),
    # One row does not fit, half of its memory does.
    (
      (5, 20),
      8,
      1,
      ['--config.stages.video.accumulate=8', '--config.model.remat=block'],
    ),
    # The state alone is too large for one device, and not for four.
    ((19, 1), 8, 4, ['--config.train.fsdp=4']),
    ((99, 1), 8, 4, None),
  ],
)
def test_overrides(config, line, batch, devices, found):
  config = fit.changed(config, 'video', batch=batch)
  target = targets.parse('rtx4090')._replace(devices=devices)
  got = fit.overrides(
    config, 'video', target, COST, make_line(*line), lambda: GIB / 2
  )
  assert got == found


def test_the_largest_batch_fits_and_one_more_does_not():
  line = make_line(2, 3)
  rows = line.largest(18 * GIB)
  assert line.peak(rows) <= 18 * GIB < line.peak(rows + 1)
  assert make_line(20, 1).largest(18 * GIB) == 0


def test_the_line_is_through_the_batches_that_were_compiled(
  config, monkeypatch
):
  config = fit.changed(config, 'video', batch=64)
  asked = []

  def measure(config, stage, target, *, seconds):
    del stage, target, seconds
    batch = config.stages.video.batch
    asked.append(batch)
    return {'peak': 100 + 7 * batch / 2, 'seconds': 1.0}

  monkeypatch.setattr(compiling, 'is_installed', lambda platform: True)
  monkeypatch.setattr(compiling, 'measure', measure)
  target = targets.parse('h100x2')
  line = fit.measure(config, 'video', target, COST, seconds=5.0)
  assert asked == [8, 16]
  assert line == fit.Line(100, 7, 'extrapolated', seconds=2.0)
  assert fit.peak(config, 'video', 2, COST, line) == 100 + 7 * 32
  halved = fit.changed(config, 'video', accumulate=2)
  assert fit.peak(halved, 'video', 2, COST, line) == 100 + 7 * 16 + GIB


def test_a_compiler_that_fails_is_named(config, monkeypatch):
  def fails(*args, **kwargs):
    raise compiling.CompileError('the compiler failed: no such chip')

  monkeypatch.setattr(compiling, 'is_installed', lambda platform: True)
  monkeypatch.setattr(compiling, 'measure', fails)
  cost = costs.count(config, 'video')
  target = targets.parse('v5e-4')
  line = fit.measure(config, 'video', target, cost, seconds=5.0)
  assert line.source == 'estimated'
  assert 'no such chip' in line.why


def test_rows_that_cost_nothing_make_no_line(config, monkeypatch):
  def measure(*args, **kwargs):
    return {'peak': 100, 'seconds': 1.0}

  monkeypatch.setattr(compiling, 'is_installed', lambda platform: True)
  monkeypatch.setattr(compiling, 'measure', measure)
  cost = costs.count(config, 'video')
  target = targets.parse('v5e-4')
  line = fit.measure(config, 'video', target, cost, seconds=5.0)
  assert line.source == 'estimated' and 'needs no more for 2 rows' in line.why
  assert line.largest(target.memory) > 0


def test_a_compilation_that_takes_too_long_is_stopped(config):
  with pytest.raises(compiling.CompileError, match='longer than 0 s'):
    compiling.measure(config, 'video', targets.parse('v5e-1'), seconds=0.01)


def test_the_request_survives_json(config):
  values = json.loads(json.dumps(serialize.to_content(config)))
  assert serialize.from_content(values, 'the request') == config


def run_plan(*arguments):
  command = [sys.executable, '-m', 'vdm.plan', '--nocompile']
  return subprocess.run(
    [*command, '--data_seconds=0', *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.fixture(scope='module')
def plan(tmp_path_factory):
  """The command's answer for the demo in small: (text, numbers)."""
  folder = tmp_path_factory.mktemp('plan')
  done = run_plan(
    '--config=configs/synthetic.py:smoke',
    '--config.train.compute_dtype=bfloat16',
    '--targets=h100,v5e-4',
    f'--config.data.root={folder}',
    f'--out={folder}/plan.json',
  )
  assert done.returncode == 0, done.stderr
  return done.stdout, json.loads((folder / 'plan.json').read_text())


def test_numbers_that_cannot_be_written_are_one_sentence(tmp_path):
  (tmp_path / 'file').touch()
  done = run_plan(
    '--config=tests/faults/tiny.py',
    "--config.train.order=('autoencoder',)",
    '--targets=h100',
    f'--config.data.root={tmp_path}',
    f'--out={tmp_path}/file/plan.json',
  )
  assert done.returncode == 2 and 'stage on target' in done.stdout
  assert 'Traceback' not in done.stderr
  assert 'Not a directory' in done.stderr.splitlines()[-1]


def test_the_command_plans_every_stage_on_every_target(plan):
  text, numbers = plan
  assert numbers['targets'].keys() == {'h100', 'v5e-4'}
  for target in numbers['targets'].values():
    assert target['stages'].keys() == numbers['stages'].keys()
    # Half of the peak takes 0.4 of the time of a fifth.
    hours = target['hours']
    np.testing.assert_allclose(hours['0.5'], 0.4 * hours['0.2'])
  # Of one H100 at a fifth of 989 TFLOP/s.
  tflop = sum(s['steps'] * s['tflop'] for s in numbers['stages'].values())
  hours = numbers['targets']['h100']['hours']['0.2']
  np.testing.assert_allclose(hours, tflop / (0.2 * 989) / 3600)
  assert numbers['disk']['data set'] is None
  assert 'video on v5e-4' in text
  assert 'estimated' in text


def test_data_that_is_not_here_yet_does_not_stop_a_plan(tmp_path):
  """The name of a data set of videos depends on the videos."""
  config = schema.default()
  config.data.update(name='ucf101', root=str(tmp_path), source='nowhere')
  assert disk.data_set(config) is None
  assert disk.latents(config) is None
  assert data_rate.measure(config, 'video', 1.0) is None


def test_an_unknown_target_is_one_sentence():
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'vdm.plan',
      '--targets=h101',
      '--config',
      'configs/synthetic.py:smoke',
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert done.stderr.startswith("There is no target 'h101'")
  assert len(done.stderr.splitlines()) == 1


def test_what_does_not_fit_is_marked_and_mended(config):
  numbers = report.target_numbers(
    config,
    targets.parse('h100')._replace(memory=1.0),
    {'video': COST},
    0.0,
    functools.partial(report._kept_if_remat, config),
  )
  found = numbers['stages']['video']
  assert not found['fits']
  assert found['overrides'] is None
  text = report.text(
    {
      'stages': {
        'video': report.stage_numbers(config, 'video', COST)
        | {'pipeline': None}
      },
      'targets': {'h100': numbers},
      'disk': {'data set': None},
    }
  )
  assert 'video does not fit h100' in text


def test_a_batch_that_does_not_divide_stops_its_own_target_alone(config):
  """Eight rows over three devices and over four."""
  found = {
    name: report.target_numbers(
      config, targets.parse(name), {'video': COST}, 0.0, lambda stage: 0.0
    )
    for name in ('h100x3', 'h100x4')
  }
  stage = report.stage_numbers(config, 'video', COST) | {'pipeline': None}
  text = report.text(
    {'stages': {'video': stage}, 'targets': found, 'disk': {'data set': None}}
  )
  assert found['h100x4']['stages']['video']['fits']
  assert found['h100x3']['hours'] == {}
  assert 'video cannot run on h100x3: config.stages.video.batch=8' in text
  assert 'cannot run on h100x4' not in text


@pytest.mark.slow
@pytest.mark.parametrize('name', ['v5e-4', 'v5e-4x2', 'v4-8', 'h100x8'])
def test_compilers_of_devices_that_are_not_here(config, name):
  """bash launch/test.sh -m slow tests/planning_test.py

  With the packages of `compiling.INSTALL`.
  """
  target = targets.parse(name)
  if not compiling.is_installed(target.platform):
    pytest.skip(f'needs {compiling.INSTALL[target.platform]}')
  found = compiling.measure(config, 'video', target, seconds=900)
  assert found['peak'] > 0
  # The donated state is updated in place.
  _, (packed, *_) = costs.lowerable(
    config, 'video', sharding.make_mesh(devices=jax.devices()[:1])
  )
  assert found['aliased'] >= costs.size(packed)
  # Gradients are summed; no activation goes to another device.
  assert found['collectives']['all-reduce'] > 0
  assert found['collectives']['all-gather'] == 0
  assert found['collectives']['all-to-all'] == 0


@pytest.mark.slow
def test_fused_attention_compiles_for_a_gpu_that_is_not_here(config):
  """bash launch/test.sh -m slow tests/planning_test.py"""
  if not compiling.is_installed('gpu'):
    pytest.skip(f'needs {compiling.INSTALL["gpu"]}')
  config = fit.changed(config, 'video')
  config.train.compute_dtype = 'bfloat16'
  kinds = {}
  for implementation in ('plain', 'cudnn'):
    config.model.attention = implementation
    found = compiling.measure(
      config, 'video', targets.parse('h100'), seconds=900
    )
    kinds[implementation] = {
      name for name in found['kinds'] if 'dot_product_attention' in name
    }
  assert kinds['plain'] == set()
  assert len(kinds['cudnn']) == 2  # Forwards and backwards.
