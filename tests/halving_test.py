"""Sweeps that stop the worse half of their values: what goes on, and when."""

import json
import pathlib
import re

import pytest
import stub_trainer
import sweep_test
import written_runs

from vdm.common import errors
from vdm.reporting import compare_runs
from vdm.sweeping import execute
from vdm.sweeping import halving
from vdm.sweeping import ladder

RATE = sweep_test.RATE
LOSS = 'log/val_loss@steps'
# The baseline is third, and the one before it last.
RATES = ('0.03', '1.0', '0.1', '0.01', '0.02')


def make_plan(workdir, rates=RATES, vary=RATE, base=None, **options):
  """Of 900 steps after a shared autoencoder, evaluated every 100."""
  base = base or written_runs.make_config(train__eval_every=100)
  vary = f'{vary}={",".join(rates)}'
  return sweep_test.make_plan(workdir, vary, base=base, **options)


class Killed(BaseException):
  """What ends a sweep without a word."""


class Runner:
  """Trains in this process; `execute.Runner` is tested in `sweep_test`.

  Attributes:
    stopping: whether a signal has come.
    calls: (folder, last argument) of all runs that were started.
  """

  def __init__(self, fail='', kill_at=None, stop_at=None):
    """Starts nothing.

    Args:
      fail: runs with this in their folder fail.
      kill_at: number of the call in which the sweep is killed.
      stop_at: likewise, in which a signal stops it.
    """
    self.stopping, self.calls = False, []
    self._fail, self._kill_at, self._stop_at = fail, kill_at, stop_at

  def __call__(self, module, arguments):
    del module
    workdir = next(x for x in arguments if x.startswith('--workdir='))
    self.calls.append((workdir, arguments[-1]))
    if self._fail and self._fail in workdir:
      return 1
    now = len(self.calls) - 1
    if now in (self._kill_at, self._stop_at):  # In the middle of it.
      middle = {'--stop_at=200': 150, '--stop_at=400': 350}
      step = middle.get(arguments[-1], 50 if 'shared' in workdir else 650)
      stub_trainer.main([*arguments, f'--stop_at={step}'])
      if now == self._kill_at:
        raise Killed
      self.stopping = True
      return 75
    stub_trainer.main(arguments)
    return 0


def run(plan, rungs, runner=None):
  plan.workdir.mkdir(exist_ok=True, parents=True)
  (plan.workdir / 'calls.txt').touch()
  return execute.run(plan, runner or Runner(), rungs)


def table(plan, rungs):
  return halving.text(rungs, halving.read(rungs, plan))


def steps_of(plan):
  """{(value, seed): last step} of the runs."""
  found = {}
  for item in plan.runs:
    lines = (item.folder / 'metrics.jsonl').read_text().splitlines()
    value = ladder.value_of(item).partition('=')[2]
    found[value, item.config.seed] = json.loads(lines[-1])['step']
  return found


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """(plan, rungs, folders) of a sweep that nothing interrupted."""
  plan = make_plan(tmp_path_factory.mktemp('sweep') / 'lr')
  rungs = ladder.make(plan, LOSS)
  code, folders = run(plan, rungs)
  assert code == 0
  return plan, rungs, folders


def test_rungs_are_declared_with_what_they_cost(tmp_path):
  plan = make_plan(tmp_path / 'sweep')
  rungs = ladder.make(plan, LOSS)
  # A quarter and half of 900, where the loss is evaluated before.
  assert rungs.steps == [200, 400]
  # (5 x 200 + 3 x 200 + 2 x 500) x 2 seeds of 5 x 900 x 2.
  assert ladder.note(rungs, plan) == (
    f'Halving by {LOSS}: 5 values to step 200, 3 values to step 400, 2 values '
    'to step 900; of 2 seeds each, 5,200 of 9,000 steps at most.'
  )
  assert not (tmp_path / 'sweep').exists()
  # Of three values two are left at the first rung.
  few = make_plan(tmp_path / 'sweep', RATES[:3])
  assert ladder.make(few, LOSS).steps == [200]


def test_the_worse_half_stops_and_the_baseline_goes_on(finished):
  plan, rungs, folders = finished
  whole, stopped = 900, {'1.0': 200, '0.1': 200, '0.02': 400}
  assert steps_of(plan) == {
    (rate, seed): stopped.get(rate, whole) for rate in RATES for seed in (0, 1)
  }
  # The second rung keeps the best, and the baseline in place of the second.
  first, second = halving.read(rungs, plan)
  assert first['kept'] == [f'{RATE}={x}' for x in ('0.03', '0.01', '0.02')]
  assert second['kept'] == [f'{RATE}={x}' for x in ('0.03', '0.01')]
  goes_on = [x for x in plan.runs if ladder.value_of(x) in second['kept']]
  assert folders == [item.folder for item in goes_on]
  assert halving.stopped(rungs, [first]) == {f'{RATE}=1.0', f'{RATE}=0.1'}
  assert halving.stopped(rungs, []) == set()
  text = compare_runs.compare(folders, plan.workdir, LOSS)
  assert '1.0' not in text.partition('\n\n')[0]


def test_values_are_judged_by_means_over_seeds_at_the_rung(finished):
  plan, rungs, _ = finished
  for decision in halving.read(rungs, plan):
    for value, score in decision['scores'].items():
      numbers = []
      for item in plan.runs:
        if ladder.value_of(item) == value:
          lines = (item.folder / 'metrics.jsonl').read_text().splitlines()
          rows = [json.loads(line) for line in lines]
          numbers += [
            row['val_loss']
            for row in rows
            if row['step'] == decision['step'] and 'val_loss' in row
          ]
      assert len(numbers) == 2
      assert score == pytest.approx(sum(numbers) / 2, rel=1e-12)


def test_the_table_says_what_was_stopped_and_where(finished):
  plan, rungs, _ = finished
  lines = table(plan, rungs).splitlines()
  assert 'lower is better; means over 2 seeds' in lines[0]
  assert lines[1].split() == ['step', '200', 'step', '400']
  ends = [line.split('  ')[-1].strip() for line in lines[2:]]
  assert ends == [
    'to the end',
    'stopped at step 200',
    'stopped at step 200',
    'to the end',
    'stopped at step 400',
  ]
  assert '(baseline)' in lines[2] and ' - ' in lines[3]


def test_a_finished_sweep_runs_and_decides_nothing(finished):
  plan, rungs, folders = finished
  record, runner = (plan.workdir / halving.RECORD).read_bytes(), Runner()
  assert run(plan, rungs, runner) == (0, folders)
  assert runner.calls == []
  assert (plan.workdir / halving.RECORD).read_bytes() == record
  # What was decided on is not decided otherwise.
  for other in (
    rungs._replace(steps=[300]),
    rungs._replace(primary='log/loss@steps'),
    rungs._replace(seeds=[0, 1, 2]),
  ):
    with pytest.raises(errors.UsageError, match='delete it to decide again'):
      run(plan, other)


def test_a_value_that_fails_is_behind_all_others(tmp_path):
  plan = make_plan(tmp_path, ('0.03', '0.01', '0.02', '0.1'), seeds=[0])
  rungs = ladder.make(plan, LOSS)
  code, folders = run(plan, rungs, Runner(fail=f'{RATE}=0.01'))
  names = [folder.parent.name for folder in folders]
  assert code == 1 and names == [f'{RATE}=0.03', f'{RATE}=0.02']
  assert 'failed before step 200' in table(plan, rungs)
  # It stays decided, and said.
  assert run(plan, rungs)[0] == 1


class Diverging(Runner):
  """As `Runner`, and the loss of some values is NaN."""

  def __init__(self, *rates):
    super().__init__()
    self._rates = rates

  def __call__(self, module, arguments):
    code = super().__call__(module, arguments)
    workdir = pathlib.Path(self.calls[-1][0].removeprefix('--workdir='))
    if workdir.parent.name.partition('=')[2] in self._rates:
      path = workdir / 'metrics.jsonl'
      text = re.sub(
        r'"val_loss": [-.0-9e]+', '"val_loss": "nan"', path.read_text()
      )
      path.write_text(text)
    return code


def test_a_value_that_diverges_is_told_from_one_that_is_behind(tmp_path):
  plan = make_plan(tmp_path, ('0.03', '0.01', '0.02', '0.1'), seeds=[0])
  rungs = ladder.make(plan, LOSS)
  code, folders = run(plan, rungs, Diverging('0.01'))
  assert code == 1
  assert [x.parent.name for x in folders] == [f'{RATE}=0.03', f'{RATE}=0.02']
  ends = [x.split('  ')[-1].strip() for x in table(plan, rungs).splitlines()]
  assert ends[3] == 'diverged before step 200'
  assert ends[5] == 'stopped at step 200'


@pytest.mark.parametrize('left', [0, 1])
def test_a_sweep_in_which_nothing_is_left_to_compare_ends(left, tmp_path):
  rates = ('0.03', '0.01', '0.02', '0.1')
  plan = make_plan(tmp_path, rates, seeds=[0])
  rungs = ladder.make(plan, LOSS)
  runner = Diverging(*rates[left:])
  # Nothing is trained beyond the rung, and again it ends the same.
  for _ in range(2):
    assert run(plan, rungs, runner) == (1, [])
    assert {step for _, step in runner.calls[1:]} == {'--stop_at=200'}
  text = table(plan, rungs)
  assert text.count('diverged before step 200') == len(rates) - left
  assert text.count('the only one left') == left


@pytest.fixture
def of_one_seed(tmp_path_factory):
  """As `finished`."""
  plan = make_plan(tmp_path_factory.mktemp('seed') / 'lr', seeds=[0])
  rungs = ladder.make(plan, LOSS)
  return plan, rungs, run(plan, rungs)[1]


def test_ended_anywhere_it_decides_the_same(of_one_seed, tmp_path):
  """In each run in turn, killed and stopped by a signal alternately."""
  plan, rungs, wanted = of_one_seed
  other, ends = make_plan(tmp_path / 'lr', seeds=[0]), 0
  while True:
    # Each start repeats the run that was ended, and ends in the one after it.
    kind = 'stop_at' if ends % 2 else 'kill_at'
    runner = Runner(**{kind: 1 if ends else 0})
    try:
      code, folders = run(other, rungs, runner)
    except Killed:
      code = 75
    if not code:
      break
    assert code == 75
    ends += 1
  assert ends == 1 + 5 + 3 + 2
  assert [x.parent.name for x in folders] == [x.parent.name for x in wanted]
  name = halving.RECORD
  assert (other.workdir / name).read_text() == (plan.workdir / name).read_text()
  assert table(other, rungs) == table(plan, rungs)
  assert steps_of(other) == steps_of(plan)


@pytest.mark.parametrize(
  'rates, primary, shares, changes, words',
  [
    (RATES[:2], LOSS, (0.25,), {}, 'keeps 2 values at least, and there are 2'),
    (RATES, LOSS, (0.5, 0.25), {}, 'rising shares between 0 and 1'),
    (RATES, LOSS, (0.5, 1.0), {}, 'rising shares between 0 and 1'),
    (RATES, LOSS, (0.1,), {}, 'is before the first log/val_loss.* at step 100'),
    (RATES, '', (0.25,), {}, 'final/truth/label_agreement is not of the log'),
    (RATES, 'log/val_loss@seconds', (0.25,), {}, 'is not of the log'),
    (RATES, 'log/grad_norm@steps', (0.25,), {}, 'which way it is better'),
    (
      RATES,
      'log/small_score/motion@steps',
      (0.25,),
      {'score__every': 0},
      'which is never logged',
    ),
  ],
)
def test_what_makes_no_sense_is_refused(
  rates, primary, shares, changes, words, tmp_path
):
  base = written_runs.make_config(train__eval_every=100, **changes)
  plan = make_plan(tmp_path, rates, base=base)
  with pytest.raises(errors.UsageError, match=words) as error:
    ladder.make(plan, primary, shares)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'vary, values, words',
  [
    ('stages.video.steps', ('700', '800', '900'), 'changes how many steps'),
    ('train.eval_every', ('50', '100', '200'), 'changes how many steps'),
    ('diffusion.weighting', ('v', 'x0', 'eps'), 'weighting differs'),
    # Every run has an autoencoder of its own, and losses are of its latents.
    ('optim.b1', ('0.9', '0.8', '0.7'), 'optim.b1, which the autoencoder'),
  ],
)
def test_what_cannot_be_compared_early_is_refused(
  vary, values, words, tmp_path
):
  plan = make_plan(tmp_path, values, vary)
  with pytest.raises(errors.UsageError, match=words):
    ladder.make(plan, LOSS)


def test_a_number_that_was_not_logged_is_named(tmp_path):
  plan = make_plan(tmp_path, RATES[:3], seeds=[0])
  rungs = ladder.make(plan, 'log/val_loss_labelled@steps')
  with pytest.raises(errors.UsageError, match='has no .* did you mean val_los'):
    run(plan, rungs)
  assert halving.read(rungs, plan) == []
