"""Killed runs end like the uninterrupted one; the checks detect cheating.

A short selection: `python tests/faults/campaign.py` runs all of it. Minutes:

  bash launch/test.sh -m slow tests/faults/kill_test.py
"""

import sys

import harness
import kills
import numpy as np
import pytest
import tiny

KILL = 'SIGKILL'


def test_the_uninterrupted_run_has_all_phases(reference):
  _, _, found = reference
  kinds = [kind for _, kind in found.rows]
  assert kinds.count('loss') == 20
  assert {'val_psnr', 'val_loss'} <= set(kinds)
  assert len(found.sheets) == 5 and found.videos
  assert found.digests.keys() == {'params', 'opt_state', 'ema'}


@pytest.mark.parametrize(
  'plan',
  [
    [('save', 2, KILL), ('sampling', 0, 'SIGTERM')],
    pytest.param(
      [
        ('compile', 0, KILL),
        ('border', 0, 'SIGINT'),
        ('evaluation', 2, KILL),
        ('plain', 0, KILL),
      ],
      marks=pytest.mark.slow,
    ),
  ],
  ids=['save_sampling', 'compile_border_evaluation_plain'],
)
def test_killed_and_resumed_nothing_differs(plan, reference, tmp_path):
  folder, cache, wanted = reference
  seed = int.from_bytes(repr(plan).encode(), 'little') % 2**32
  found, problems = kills.run_with_kills(
    folder / f'killed_{seed}', cache, wanted, plan, np.random.default_rng(seed)
  )
  assert found, 'no kill was in time'
  for kill in found:
    assert not kill.problems, kill
  assert not problems


FROM_NOTHING = """
import runpy, sys
from vdm.checkpoints import manager
manager.Checkpoints.steps = lambda self: []
manager.Checkpoints.latest = lambda self: None
sys.argv = ['vdm.main', *sys.argv[1:]]
runpy.run_module('vdm.main', run_name='__main__')
"""


@pytest.mark.slow  # By default on evidence alone: the next test.
def test_code_that_restarts_from_nothing_is_detected(reference):
  """All its losses and parameters are right: only `resumed_from` differs."""
  folder, cache, wanted = reference
  found, problems = kills.run_with_kills(
    folder / 'from_nothing',
    cache,
    wanted,
    [('border', 0, KILL)],
    np.random.default_rng(3),
    command=[sys.executable, '-c', FROM_NOTHING],
  )
  assert not [p for p in problems if 'row' in p or 'digests' in p]
  (kill,) = found
  assert kill.resumed == 0 < kill.saved
  assert any('resumed from 0' in problem for problem in kill.problems)


def test_the_step_of_a_resume_is_checked():
  def problems(resumed, saved=9, logged=11):
    left = harness.Evidence(saved, logged, {})
    return harness.problems_of_resume(left, resumed)

  assert not problems(9)
  assert problems(6) == ['resumed from 6, and 9 was saved']
  assert not problems(0, saved=0, logged=5)
  assert problems(0, saved=0, logged=2 * tiny.SAVE_EVERY) == [
    'resumed from 0, two intervals behind step 6'
  ]


def test_differences_are_found(reference):
  *_, wanted = reference
  assert not harness.problems_of_result(wanted, wanted)
  rows = {k: dict(v) for k, v in wanted.rows.items()}
  rows[7, 'loss']['loss'] = float(np.nextafter(rows[7, 'loss']['loss'], 9))
  del rows[9, 'val_loss']
  found = harness.Result(rows, {'params': {}}, wanted.videos, {})
  problems = harness.problems_of_result(found, wanted)
  assert problems[0].startswith('step 7, loss: loss is')
  assert problems[1:] == [
    "rows in one of the logs only: [(9, 'val_loss')]",
    'other digests',
    'other sheets',
  ]
