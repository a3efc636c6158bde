"""Findings from numbers: each planted one is named, and nothing else."""

import json

from conftest import ROOT
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from benchmarks import planted
from vdm import trained
from vdm.common import power_averages
from vdm.common import trees
from vdm.config import schema
from vdm.data.builders import synthetic_scenes
from vdm.diffusion import guidance
from vdm.diffusion import losses
from vdm.diffusion import schedules
from vdm.evaluation import ailments
from vdm.training import autoencoder_stage
from vdm.training import optim
from vdm.training import packing
from vdm.training import stages
from vdm.training import train_state
from vdm.training import train_step

# Of a run of the demo, docs/diagnose.md.
HEALTHY = {
  'static_share': 0.0,
  'order': 0.13,
  'autoencoder_psnr': 30.9,
  'latent_rms': 1.02,
  'rounded_share': 1.2e-5,
  'zero_init_size': 1.76,
  'temporal_size': 1.62,
  'raw_over_average': 1.0,
  'over_linear': 0.24,
  'over_identity': 0.69,
  'over_zero': 0.48,
  'label_gain': 0.6,
  'company_gain': 0.94,
  'overshoot': 0.9,
}


def names(**changes):
  found = ailments.judge({**HEALTHY, **changes})
  return [finding.name for finding in found]


def test_nothing_is_found_in_a_healthy_run():
  assert names() == []
  assert ailments.judge({}) == []


@pytest.mark.parametrize(
  ('changes', 'name'),
  [
    (dict(order=0.99), 'frames out of order'),
    (dict(static_share=0.5), 'clips without motion'),
    (dict(autoencoder_psnr=23.0), 'poor autoencoder'),
    (dict(latent_rms=3.0), 'latents out of scale'),
    (dict(latent_rms=0.3), 'latents out of scale'),
    (dict(rounded_share=1.0), 'parameters in 16 bits'),
    (dict(raw_over_average=0.4), 'average too wide'),
    (dict(temporal_size=0.0, company_gain=0.0), 'temporal layers untrained'),
    (
      dict(over_linear=1.4, zero_init_size=0.03, temporal_size=0.02),
      'hardly trained',
    ),
    (dict(over_linear=2.0), 'trained and not learning'),
    (dict(zero_init_size=70.0, temporal_size=62.0), 'learning rate too high'),
    (dict(over_identity=4.0), 'low noise untrained'),
    (dict(over_zero=1.3), 'high noise untrained'),
    (dict(label_gain=0.0), 'labels without effect'),
    (dict(company_gain=0.0), 'frames ignore each other'),
    (dict(overshoot=1.5), 'guidance too strong'),
  ],
)
def test_each_number_has_its_ailment_named_first(changes, name):
  assert names(**changes)[0] == name


def test_networks_without_layers_that_start_at_zero_have_no_size_of_them():
  (finding,) = ailments.judge({'over_linear': 2.0})
  assert finding.name == 'trained and not learning'
  assert finding.what == (
    'The error is 2.00 times that of the best linear denoiser.'
  )


def test_a_cause_stands_before_its_effects():
  found = names(latent_rms=3.0, over_linear=1.5, label_gain=0.0)
  assert found[0] == 'latents out of scale'
  assert found[-1] == 'labels without effect'


def test_every_number_that_is_judged_is_shown():
  assert {line.key for line in ailments.LINES} == set(HEALTHY)
  for finding in ailments.judge({**HEALTHY, 'order': 1.0, 'label_gain': 0.0}):
    assert finding.what.endswith('.') and finding.todo.endswith('.')


def test_faults_of_real_runs_are_named_and_healthy_ones_have_none():
  """The numbers are of runs that no threshold was set on."""
  record = json.loads((ROOT / 'benchmarks/records/ailments.json').read_text())
  first = {
    (run['fault'], run['dose'], run['seed']): [
      finding.name for finding in ailments.judge(run['numbers'])
    ][:1]
    for run in record['runs']
  }
  healthy = [x for (fault, *_), x in first.items() if fault == 'healthy']
  assert len(healthy) == 8 and sum(map(bool, healthy)) <= 1
  for seed in (3, 4, 5):
    named = [
      first[name, 'full', seed] == [fault.finding]
      for name, fault in planted.FAULTS.items()
    ]
    assert len(named) == 12 and sum(named) >= 10


def rendered():
  """Frames and labels of 40 scenes, as the builder renders them."""
  made = [
    synthetic_scenes.scenes.render(i, seed=0, resolution=16, frames=6)
    for i in range(40)
  ]
  return np.stack([x['frames'] for x in made]), [x['label'] for x in made]


def check_scenes(plant, judge):
  """`judge` says of a scene, before and after, whether it is as it was.

  Args:
    plant: plants the fault and returns its dose.
    judge: (frames, label, frames, label) -> bool; asserts that what changed is
      what the fault changes.
  """
  before = rendered()
  dose = plant((synthetic_scenes.scenes, 'render'))
  after = rendered()
  same = sum(map(judge, *before, *after))
  # Four deviations of a binomial.
  slack = 4 * (40 * dose * (1 - dose)) ** 0.5
  assert abs(40 * (1 - dose) - same) <= slack and same < 40
  np.testing.assert_array_equal(rendered()[0], after[0])  # Of scene i alone.


def check_frames(plant):
  def judge(x, label, y, new_label):
    assert label == new_label
    assert sorted(map(bytes, x)) == sorted(map(bytes, y))
    return (x == y).all()

  check_scenes(plant, judge)


def check_static(plant):
  def judge(x, label, y, new_label):
    assert label == new_label
    assert (x == y).all() or (
      (y == y[0]).all() and bytes(y[0]) in set(map(bytes, x))
    )
    return (x == y).all()

  check_scenes(plant, judge)


def check_labels(plant):
  frames, labels = rendered()
  dose = plant((synthetic_scenes.scenes, 'render'))
  new_frames, new = rendered()
  np.testing.assert_array_equal(new_frames, frames)
  assert set(new) <= set(range(8))
  # One in eight draws the label that it had.
  share = dose * 7 / 8
  slack = 4 * (40 * share * (1 - share)) ** 0.5
  assert abs(np.not_equal(new, labels).sum() - 40 * share) <= slack


def check_autoencoder(plant):
  params = {'a': np.full((40, 50), 2.0, 'f'), 'b': np.zeros(3, 'f')}
  stats = {'mean': np.ones(4, 'f'), 'scale': np.full(4, 5.0, 'f')}

  def load(source):
    return source, params, stats, 'print'

  dose = plant((trained, 'load_autoencoder', load))
  source, spoilt, other, fingerprint = trained.load_autoencoder('here')
  assert (source, fingerprint) == ('here', 'print')
  off = spoilt['a'] / params['a'] - 1
  # Of 2000 values: within four deviations.
  assert abs(off.mean()) < 4 * dose / 2000**0.5
  assert off.std() == pytest.approx(dose, rel=4 / 4000**0.5)
  assert spoilt['a'].dtype == np.float32 and not spoilt['b'].any()
  assert (other['mean'] == stats['mean']).all()
  assert (other['scale'] > stats['scale']).all()


def check_latents(plant):
  saved = []

  def save(*args):
    saved.append(args)

  dose = plant((autoencoder_stage.files, 'save', save))
  stats = {'mean': np.ones(4), 'scale': np.full(4, 6.0)}
  autoencoder_stage.files.save('here', 'options', {'a': 1}, stats)
  ((*rest, found),) = saved
  assert rest == ['here', 'options', {'a': 1}]
  assert (found['mean'] == 1).all()
  # What is divided by the scale is as many times as large.
  np.testing.assert_allclose(1 / found['scale'], dose / 6)


def check_precision(plant):
  """One update of a network with a bit of everything."""
  options = schema.default().optim
  options.name = 'muon'
  shapes = {
    'stem/kernel': (3, 3, 2, 4),
    'block/conv/kernel': (3, 3, 4, 4),
    'block/conv/bias': (4,),
    'embed_label': (9, 4),
  }
  rng = np.random.default_rng(0)
  state = train_state.create(
    options,
    trees.unflatten(
      {path: rng.normal(size=x).astype('f') for path, x in shapes.items()}
    ),
  )
  layout = packing.plan(state, [list(shapes)])
  packed = packing.pack(layout, state)
  stage = tiny_runs.make_config().stages.video
  rates = {key: group.rate for key, group in layout.items()}

  def updated():
    params, _ = optim.update(
      options,
      stage,
      1.0,
      jax.tree.map(jnp.sin, packed.params),
      packed.opt_state,
      packed.params,
      rates,
    )
    return packing.split(layout, params)

  plain = updated()
  dose = plant((optim, 'update'))
  for path, x in updated().items():
    rounded = plain[path].astype(jnp.bfloat16).astype(jnp.float32)
    assert (plain[path] != rounded).any()
    hit = dose == 'all' or path == 'block/conv/kernel'
    np.testing.assert_array_equal(x, rounded if hit else plain[path])
  if dose != 'all':
    adam = {k: x for k, x in layout.items() if 'vectors' in x.members}
    assert len(adam) == 1
    with pytest.raises(ValueError, match='No parameters are hidden kernels'):
      optim.update(
        options,
        stage,
        1.0,
        *(
          {key: x[key] for key in adam}
          for x in (packed.params, packed.opt_state, packed.params)
        ),
        rates,
      )


def check_average(plant):
  exponent = train_step.power_averages.gamma
  assert exponent is power_averages.gamma
  dose = plant((train_step, 'power_averages'))
  found = train_step.power_averages.gamma(0.1)
  assert found == exponent(dose) != exponent(0.1)
  assert power_averages.gamma is exponent  # Elsewhere it is what it was.


def check_time(plant):
  params = {'conv': {'kernel': 1}, 'temporal_conv': {'kernel': 1, 'bias': 1}}
  stage = schema.stage(frozen=())
  dose = plant((stages, 'rates'), (stages, 'trained_paths'))
  temporal = ['temporal_conv/bias', 'temporal_conv/kernel']
  found = stages.trained_paths(params, stage, ())
  assert found == ['conv/kernel', *(temporal if dose else ())]
  wanted = dict.fromkeys(temporal, dose) if dose else {}
  assert stages.rates(params, stage) == wanted


def check_rates(plant):
  stage = schema.stage(steps=100, warmup=10, cooldown=0.2)
  before = [optim.learning_rate(stage, n) for n in (0, 9, 50, 99)]
  dose = plant((optim, 'learning_rate'))
  after = [optim.learning_rate(stage, n) for n in (0, 9, 50, 99)]
  np.testing.assert_allclose(after, dose * np.array(before))
  assert max(before) == 1


def check_noise(plant):
  def draw():
    return losses.draw_levels(
      jax.random.key(0),
      64,
      3,
      density='normal',
      mean=0.0,
      std=2.0,
      schedule=schedules.make_schedule(
        'cosine', logsnr_min=-10, logsnr_max=10, shift=1.0
      ),
      frame_levels={'shared': 1.0},
    )

  levels, mask = draw()
  dose = plant((losses, 'draw_levels'))
  found, same = draw()
  np.testing.assert_array_equal(found, np.minimum(levels, dose))
  np.testing.assert_array_equal(same, mask)
  assert levels.max() > dose > levels.min()


def check_guidance(plant):
  def denoise(z, levels, cond):
    del levels
    return z + cond['label'][:, None, None, None, None]

  cond = {'label': jnp.array([3.0])}
  contrasts = [guidance.Contrast(1.0, {'label': jnp.array([1.0])})]
  z, levels = jnp.zeros((1, 2, 4, 4, 3)), jnp.zeros((1, 2))
  before = guidance.guided(denoise, cond, contrasts)(z, levels)
  np.testing.assert_allclose(before, 5)  # 1 + 2 (3 - 1).
  dose = plant((guidance, 'guided'))
  found = guidance.guided(denoise, cond, contrasts)(z, levels)
  np.testing.assert_allclose(found, 1 + dose * 2)


CHECKS = {
  'frames': check_frames,
  'static': check_static,
  'autoencoder': check_autoencoder,
  'latents': check_latents,
  'precision': check_precision,
  'average': check_average,
  'time': check_time,
  'slow': check_rates,
  'fast': check_rates,
  'noise': check_noise,
  'labels': check_labels,
  'guidance': check_guidance,
}


@pytest.mark.parametrize('dose', ['full', 'mild'])
@pytest.mark.parametrize('name', planted.FAULTS)
def test_a_fault_changes_what_it_says_and_nothing_else(name, dose, monkeypatch):
  fault = planted.FAULTS[name]

  def plant(*places):
    # Each is (module, name of what is replaced), and what it replaces if that
    # is not what is there. After the test all is as it was.
    for module, attribute, *fake in places:
      present = fake[0] if fake else getattr(module, attribute)
      monkeypatch.setattr(module, attribute, present)
    fault.plant(fault.amount(dose))
    return fault.amount(dose)

  CHECKS[name](plant)
