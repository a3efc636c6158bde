"""Sweeps: what they refuse, share, skip and survive."""

import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

from conftest import ROOT
import pytest
import stub_trainer
import written_runs

from vdm.common import errors
from vdm.config import serialize
from vdm.planning import costs
from vdm.reporting import compare_runs
from vdm.sweeping import cost
from vdm.sweeping import execute
from vdm.sweeping import plan as plans
from vdm.sweeping import slurm
from vdm.sweeping import variations

STUB = (sys.executable, stub_trainer.__file__)
RATE = 'stages.video.learning_rate'


def make_plan(workdir, *vary, seeds=(0, 1), base=None, **options):
  """A plan over the configuration of `written_runs`."""
  base = written_runs.make_config() if base is None else base
  found = variations.parse(vary, base)
  return plans.make('tiny.py', base, {}, found, seeds, workdir, **options)


def run(plan, program=STUB, **environ):
  plan.workdir.mkdir(exist_ok=True, parents=True)
  (plan.workdir / 'calls.txt').touch()
  with execute.Runner(environment(**environ), program) as runner:
    return execute.run(plan, runner)


def environment(**changes):
  paths = os.pathsep.join([str(ROOT), str(ROOT / 'tests')])
  return {**os.environ, 'PYTHONPATH': paths, **changes}


def calls(plan):
  return (plan.workdir / 'calls.txt').read_text().split()


@pytest.mark.parametrize(
  'vary, message',
  [
    (['optim.lr=1,2'], 'not a key .* did you mean --config.stages'),
    (['optim=1,2'], 'is a group of keys'),
    (['optim.eps'], 'is not KEY=VALUE,VALUE'),
    (['optim.eps=1e-8,'], 'is not KEY=VALUE,VALUE'),
    (['optim.eps=1e-8,fast'], 'optim.eps=fast is wrong: it takes a number'),
    (['optim.eps=1e-8,1e-08'], 'has 1e-08 twice'),
    (
      ['optim.eps=1e-8,-1.0'],
      'config.optim.eps=-1.0 is not positive',
    ),
    (['optim.name=adamw,muno'], 'not one of adamw, muon: did you mean muon'),
    (['seed=0,1'], 'give --seeds'),
    (['optim.eps=1e-8'], 'There is nothing to compare'),
    ([], 'There is nothing to compare'),
    (
      ['optim.eps=1e-8,1e-6', 'optim.b1=0.5,0.9'],
      'pass --alone .* 3 .* --grid for all 4',
    ),
    (['optim.b1=0.5,0.9', 'optim.b1=0.1,0.2'], 'names optim.b1 twice'),
    (['sample.ema=0.1,0.2'], 'is not the width'),  # A rule between two keys.
  ],
)
def test_mistakes_are_found_before_anything_runs(vary, message, tmp_path):
  with pytest.raises(errors.UsageError, match=message):
    make_plan(tmp_path / 'sweep', *vary)
  assert not (tmp_path / 'sweep').exists()


@pytest.mark.parametrize('seeds', [[], [0, 0], [-1]])
def test_wrong_seeds(seeds, tmp_path):
  with pytest.raises(errors.UsageError, match='--seeds takes different'):
    make_plan(tmp_path, 'optim.eps=1e-8,1e-6', seeds=seeds)


def test_values_may_be_tuples():
  assert variations.split('(1,2),(3,),[4,5], x') == [
    '(1,2)',
    '(3,)',
    '[4,5]',
    'x',
  ]
  base = written_runs.make_config()
  (found,) = variations.parse(['optim.ema=(0.05,0.1),(0.1,)'], base)
  assert found.values == [(0.05, 0.1), (0.1,)]


def test_what_the_key_does_not_enter_is_shared(tmp_path):
  plan = make_plan(tmp_path, f'{RATE}=0.01,0.02', seeds=(3, 4))
  assert plan.shared.folder.name == 'shared'
  assert plan.shared.config.train.order == ('autoencoder',)
  assert plan.shared.config.seed == 3
  assert len(plan.runs) == 4 and 'share one autoencoder' in plan.notes[0]
  for item, (rate, seed) in zip(
    plan.runs, [(0.01, 3), (0.01, 4), (0.02, 3), (0.02, 4)]
  ):
    assert item.config.train.order == ('video',)
    assert item.config.autoencoder.load == str(plan.shared.folder)
    assert (item.config.stages.video.learning_rate, item.config.seed) == (
      rate,
      seed,
    )
    assert item.folder == tmp_path / f'runs/{RATE}={rate}/seed_{seed}'
    assert "--config.train.order=('video',)" in item.arguments


@pytest.mark.parametrize(
  'vary, options, note',
  [
    # The optimizer trains the autoencoder, too.
    ('optim.eps=1e-8,1e-6', {}, 'optim.eps also changes the autoencoder'),
    ('autoencoder.channels=4,8', {}, 'also changes the autoencoder'),
    ('data.flip=False,True', {}, 'also changes the autoencoder'),
    (f'{RATE}=0.01,0.02', {'share': False}, 'of its own'),
  ],
)
def test_what_it_enters_is_not(vary, options, note, tmp_path):
  plan = make_plan(tmp_path, vary, **options)
  assert plan.shared is None and note in plan.notes[0]
  assert {item.config.autoencoder.load for item in plan.runs} == {''}
  orders = {item.config.train.order for item in plan.runs}
  assert orders == {('autoencoder', 'video')}


def test_a_latent_cache_is_of_one_autoencoder(tmp_path):
  base = written_runs.make_config(data__latents=str(tmp_path / 'cache'))
  plan = make_plan(tmp_path / 'a', f'{RATE}=0.01,0.02', base=base)
  assert plan.latents[0] == 'latents'
  assert plan.latents[-1] == f'--workdir={tmp_path}/a/shared'
  assert not plans.latents_are_there(plan)
  with pytest.raises(errors.UsageError, match='holds latents of one autoenc'):
    make_plan(tmp_path / 'b', 'optim.eps=1e-8,1e-6', base=base)
  with pytest.raises(errors.UsageError, match='Write the latent cache first'):
    slurm.write(plan, str(ROOT / slurm.SCRIPT))


def test_a_grid_is_said_aloud(tmp_path):
  vary = 'model.dropout=0.0,0.1', f'{RATE}=0.01,0.02,0.03'
  plan = make_plan(tmp_path, *vary, seeds=[0], grid=True)
  assert len(plan.runs) == 6
  assert any('6 configurations that differ in several' in n for n in plan.notes)
  assert any('no verdict is possible' in n for n in plan.notes)
  folder = f'model.dropout=0.1,{RATE}=0.03'
  assert plan.runs[-1].folder.parent.name == folder


def test_an_ablation_changes_one_key_at_a_time(tmp_path):
  vary = 'model.dropout=0.0,0.1', f'{RATE}=0.01,0.02,0.03'
  plan = make_plan(tmp_path, *vary, seeds=[0, 1], alone=True)
  found = [
    (
      item.folder.parent.name,
      item.config.model.dropout,
      item.config.stages.video.learning_rate,
    )
    for item in plan.runs[::2]
  ]
  assert found == [
    ('baseline', 0.0, 0.01),
    ('model.dropout=0.1', 0.1, 0.01),
    (f'{RATE}=0.02', 0.0, 0.02),
    (f'{RATE}=0.03', 0.0, 0.03),
  ]
  assert plan.runs[0].title == 'baseline, seed 0'
  assert len(plan.notes) == 1 and 'share one autoencoder' in plan.notes[0]
  both = dict(seeds=[0], alone=True, grid=True)
  with pytest.raises(errors.UsageError, match='--alone and --grid, not both'):
    make_plan(tmp_path, *vary, **both)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """(plan, text) of a sweep that nothing interrupted."""
  folder = tmp_path_factory.mktemp('sweep') / 'lr'
  plan = make_plan(folder, 'optim.b1=0.9,0.5')
  assert run(plan) == (0, [item.folder for item in plan.runs])
  return plan, compare_runs.compare([r.folder for r in plan.runs], folder)


def test_runs_go_one_after_the_other_and_are_not_repeated(finished):
  plan, text = finished
  names = [str(r.folder.relative_to(plan.workdir)) for r in plan.runs]
  assert calls(plan) == names
  assert run(plan)[0] == 0 and calls(plan) == names
  lines = [line for line in text.splitlines() if 'final/truth/label' in line]
  assert len(lines) == 1 and '2 seeds cannot tell' in lines[0]
  assert (plan.workdir / compare_runs.PAGE).exists()


def test_more_seeds_run_only_what_is_new(finished):
  plan, _ = finished
  more = make_plan(plan.workdir, 'optim.b1=0.9,0.5', seeds=(0, 1, 2))
  before = len(calls(plan))
  assert run(more)[0] == 0
  assert calls(plan)[before:] == [
    'runs/optim.b1=0.9/seed_2',
    'runs/optim.b1=0.5/seed_2',
  ]


def test_a_folder_of_another_configuration_is_refused(finished):
  plan, _ = finished
  base = written_runs.make_config(stages__video__batch=16)
  other = make_plan(plan.workdir, 'optim.b1=0.9,0.5', base=base)
  before = calls(plan)
  with pytest.raises(errors.UsageError, match='batch: 8 -> 16'):
    run(other)
  assert calls(plan) == before
  # Where files are does not matter.
  base = written_runs.make_config(data__root='elsewhere')
  assert run(make_plan(plan.workdir, 'optim.b1=0.9,0.5', base=base))[0] == 0
  assert calls(plan) == before


def test_a_run_that_fails_does_not_keep_the_others(tmp_path):
  plan = make_plan(tmp_path, 'optim.b1=0.9,0.5', seeds=[0])
  code, folders = run(plan, STUB_FAIL='b1=0.9')
  assert (code, folders) == (1, [plan.runs[1].folder])
  assert run(plan) == (0, [item.folder for item in plan.runs])
  assert len(calls(plan)) == 3


@pytest.mark.parametrize('code', [2, 75, 1])
def test_exit_codes(code, tmp_path):
  plan = make_plan(tmp_path, f'{RATE}=0.01,0.02')
  program = ('bash', '-c', f'exit {code}', 'bash')
  assert run(plan, program) == (code, [])  # Without an autoencoder, none.


DRIVER = """
import sys
sys.path[:0] = {paths!r}
import sweep_test
plan = sweep_test.make_plan({workdir!r}, 'optim.b1=0.9,0.5')
code, folders = sweep_test.run(plan, STUB_SECONDS='1')
if not code:
  print(sweep_test.compare_runs.compare(folders, plan.workdir), end='')
sys.exit(code)
"""


def drive(workdir):
  paths = [str(ROOT / 'tests'), str(ROOT)]
  code = DRIVER.format(paths=paths, workdir=str(workdir))
  return subprocess.Popen(
    [sys.executable, '-c', code], stdout=subprocess.PIPE, text=True
  )


def wait_for(path, seconds=120):
  deadline = time.monotonic() + seconds
  while not path.exists():
    assert time.monotonic() < deadline, path
    time.sleep(0.02)


def test_a_sweep_that_is_killed_and_stopped_ends_with_the_same_table(
  finished, tmp_path
):
  workdir = tmp_path / 'lr'
  folders = [
    workdir / f'runs/optim.b1={b1}/seed_{s}'
    for b1 in (0.9, 0.5)
    for s in (0, 1)
  ]
  # Killed in the middle of the first run, which ends with it.
  process = drive(workdir)
  wait_for(folders[0] / 'metrics.jsonl')
  process.kill()
  process.wait()
  # Stopped in the middle of the second one: it is passed on, and said.
  process = drive(workdir)
  wait_for(folders[1] / 'metrics.jsonl')
  process.send_signal(signal.SIGTERM)
  assert process.wait() == 75
  assert not (folders[1] / 'final').exists()
  process = drive(workdir)
  text = process.communicate()[0]
  assert process.returncode == 0
  expected = finished[1]
  assert text == expected
  done = (workdir / 'calls.txt').read_text().split()
  names = [str(folder.relative_to(workdir)) for folder in folders]
  assert done == [names[0], names[0], names[1], names[1], names[2], names[3]]


def test_an_array_job_has_a_task_for_each_run(tmp_path):
  clone = tmp_path / 'a clone'
  (clone / 'launch').mkdir(parents=True)
  launcher = clone / 'launch/slurm.sbatch'
  real = (ROOT / slurm.SCRIPT).read_text()
  options = [line for line in real.splitlines() if line.startswith('#SBATCH')]
  launcher.write_text('\n'.join([*options, 'printf "%s\\n" "$@"']))
  plan = make_plan(clone / 'sweeps/lr', f'{RATE}=0.01,0.02')
  commands = slurm.write(plan, str(launcher))
  assert commands[0].startswith('job=$(sbatch --parsable ')
  assert '--dependency=afterok:$job' in commands[1]
  assert 'python -m vdm.compare' in commands[2]
  text = (plan.workdir / slurm.RUNS).read_text()
  assert [x for x in text.splitlines() if x.startswith('#SBATCH')] == [
    *options,
    '#SBATCH --array=0-3',
  ]

  def task(script, number):
    environ = {'SLURM_SUBMIT_DIR': str(clone), 'PATH': os.environ['PATH']}
    if number is not None:
      environ['SLURM_ARRAY_TASK_ID'] = str(number)
    return subprocess.run(
      ['bash', str(plan.workdir / script)],
      capture_output=True,
      text=True,
      env=environ,
    )

  for i, item in enumerate(plan.runs):
    assert task(slurm.RUNS, i).stdout.splitlines() == item.arguments
  assert task(slurm.SHARED, 0).stdout.splitlines() == plan.shared.arguments
  assert task(slurm.RUNS, None).returncode == 2
  assert task(slurm.RUNS, 4).returncode == 2


def test_of_a_finished_sweep_there_is_nothing_to_submit(finished, tmp_path):
  plan, _ = finished
  launcher = tmp_path / 'slurm.sbatch'
  launcher.write_text('')
  where = plan.workdir
  assert slurm.write(plan, str(launcher)) == [
    f'python -m vdm.compare {where}/runs --out {where}'
  ]
  assert not (where / slurm.RUNS).exists()


def test_disk_is_that_of_checkpoints_snapshots_and_videos(tmp_path):
  def disk_of(every):
    base = written_runs.make_config(train__snapshot_every=every)
    return cost.disk_of(make_plan(tmp_path, f'{RATE}=1,2', base=base).runs[0])

  config = written_runs.make_config()
  size = 4 * len(config.optim.ema) * costs.count(config, 'video').parameters
  # After 300, 600 and 900 steps of the last stage.
  assert disk_of(300) - disk_of(0) == 3 * size


def test_a_dry_run_lists_commands_that_can_run_and_their_cost(tmp_path):
  command = [
    sys.executable,
    '-m',
    'vdm.sweep',
    '--config',
    'configs/synthetic.py:smoke',
    '--seeds',
    '0,1',
    '--vary',
    f'{RATE}=0.002,0.003,0.004',
    '--dry_run',
    '--workdir',
    tmp_path / 's',
    '--config.train.tensorboard=False',
    '--config.sample.final',
    '4',
    '--halving',
    '--primary',
    'log/val_loss@steps',
    '--rungs',
    '0.5',
    '--config.train.eval_every=20',
  ]
  done = subprocess.run(
    command, capture_output=True, text=True, cwd=ROOT, check=False
  )
  assert done.returncode == 0, done.stderr
  assert not (tmp_path / 's').exists()
  lines = [x for x in done.stdout.splitlines() if x.startswith('python -m ')]
  assert len(lines) == 7
  words = shlex.split(lines[-1])
  assert words[:4] == [
    'python',
    '-m',
    'vdm.main',
    '--config=configs/synthetic.py:smoke',
  ]
  assert set(words[4:]) == {
    '--config.train.tensorboard=false',
    '--config.sample.final=4',
    '--config.train.eval_every=20',
    "--config.train.order=('video',)",
    f'--config.autoencoder.load={tmp_path}/s/shared',
    f'--config.{RATE}=0.004',
    '--config.seed=1',
    f'--workdir={tmp_path}/s/{"runs"}/{RATE}=0.004/seed_1',
  }
  # 60 steps of the autoencoder once, and 40 of each of six runs.
  total = next(x for x in done.stdout.splitlines() if x.startswith('7 runs'))
  assert total.split()[2:4] == ['300', '0']
  assert '2 values to step 40; of 2 seeds each, 200 of 240 ' in done.stdout
  assert re.search(r'\d\.\d\d GiB', total)


@pytest.mark.slow
def test_a_real_sweep_that_is_killed_twice(tmp_path):
  """pytest -m slow -k real_sweep: some three minutes."""
  workdir = tmp_path / 'lr'
  command = [
    sys.executable,
    '-m',
    'vdm.sweep',
    '--config',
    'tests/faults/tiny.py',
    '--vary',
    f'{RATE}=0.01,0.02',
    '--seeds',
    '0',
    '--workdir',
    workdir,
  ]
  folders = [workdir / f'runs/{RATE}={rate}/seed_0' for rate in (0.01, 0.02)]
  for folder in folders:
    process = subprocess.Popen(command, cwd=ROOT)
    wait_for(folder / 'metrics.jsonl', 300)
    process.kill()
    process.wait()
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert '1 seed cannot tell' in done.stdout
  assert (workdir / compare_runs.JSON).exists()
  for folder in folders:
    assert pathlib.Path(folder / 'final/metrics.json').exists()
  config = serialize.load(folders[1] / 'config.json')
  assert config.autoencoder.load == str(workdir / 'shared')
