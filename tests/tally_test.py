"""Counts over hosts and restarts."""

import numpy as np

from vdm.multihost import coordination
from vdm.training import tally as tally_lib


def test_hosts_add_up_and_a_restart_goes_on(monkeypatch):
  tally = tally_lib.Tally(max_skipped=10)
  for step in (1, 2, 3):
    tally.skips.add(step, np.int32(step > 1))
  # This host has replaced 2 records by step 2, the other one 5.
  monkeypatch.setattr(coordination, 'gather', lambda what, text: [text, '5'])
  meta = tally.over_all(2, 2)
  assert meta == {'skipped_steps': 1, 'bad_records': 7}
  hosts = []
  for first in (True, False):
    monkeypatch.setattr(coordination, 'is_first', lambda first=first: first)
    host = tally_lib.Tally(max_skipped=10)
    host.resume(meta)
    hosts.append(host.bad_records)
    assert host.skips.total == 1
  assert sum(hosts) == 7
