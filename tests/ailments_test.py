"""Findings from numbers: each planted one is named, and nothing else."""

import json

from conftest import ROOT
import pytest

from benchmarks import planted
from vdm.evaluation import ailments

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
