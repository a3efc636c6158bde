"""Hardware by name."""

import pytest

from vdm.planning import targets


@pytest.mark.parametrize(
  ('name', 'devices', 'topology'),
  [
    ('h100', 1, '1x1x1'),
    ('h100x8', 8, '1x1x8'),
    ('rtx4090x2', 2, '1x1x2'),
    ('a100-40x4', 4, '1x1x4'),
    ('v5e-1', 1, 'v5e:1x1'),
    ('v5e-8', 8, 'v5e:2x4'),
    ('v5e-4x2', 8, 'v5e:2x2'),
    ('v4-8', 4, 'v4:2x2x1'),
    ('v2-8', 8, 'v2:2x2'),
  ],
)
def test_names(name, devices, topology):
  target = targets.parse(name)
  assert (target.devices, target.topology['name']) == (devices, topology)


def test_every_name_has_a_peak_and_memory():
  for name in targets.names():
    target = targets.parse(name)
    assert target.peak > 1e13
    assert target.memory > 2**32


def test_chips_of_two_cores_and_hosts_of_eight_chips():
  assert targets.parse('v5p-8').topology['chip_config_name'] == 'megacore'
  assert 'chip_config_name' not in targets.parse('v5e-8').topology
  one_host = targets.parse('v6e-8').topology['chips_per_host_bounds']
  assert one_host == (2, 4, 1)
  assert targets.parse('v5e-8x2').topology['num_slices'] == 2


def test_a_gpu_gives_what_jax_reserves_of_it():
  assert targets.parse('rtx4090').memory == 0.75 * 24564 * 2**20
  description = targets.parse('rtx4090x2').topology['gpu']
  assert 'major: 8 minor: 9' in description
  assert f'device_memory_size: {24564 * 2**20}' in description


@pytest.mark.parametrize('name', ['h10', 'h100x0', 'v5e-3', 'v5e', '', 'x8'])
def test_unknown_names(name):
  with pytest.raises(ValueError, match='There is no target'):
    targets.parse(name)


def test_a_misspelt_name():
  with pytest.raises(ValueError, match='did you mean rtx4090'):
    targets.parse('rtx490')
