"""Whether `vdm.diagnose` names what is wrong with runs, of planted faults.

  python benchmarks/ailments.py --folder /tmp/ailments --seeds 3,4,5 --mild 3 \
      --healthy 3,4,5,6,7,8,9,10 --record benchmarks/records/ailments.json

Trains short runs of the synthetic scenes, four frames of every second, in one
shared autoencoder: healthy ones, and for every fault of `planted` one a seed,
and one with a smaller dose. Each is diagnosed by the program as it is. Runs
that were diagnosed are not made again, so that the command can be stopped and
started. Then it prints what was found, and writes the record: from the numbers
of the diagnoses, so that another threshold needs no other runs.
"""

import itertools
import json
import os
import pathlib
import subprocess
import sys

from absl import app
from absl import flags
import common
import planted

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from vdm.config import flag

_FOLDER = flags.DEFINE_string(
  'folder', None, 'Where runs and data go.', required=True
)
_SEEDS = flags.DEFINE_list('seeds', ['0', '1', '2'], 'Of runs with a fault.')
_MILD = flags.DEFINE_list('mild', [], 'Seeds of runs with a smaller dose.')
_HEALTHY = flags.DEFINE_list('healthy', [], 'Seeds of runs without a fault.')
_ONLY = flags.DEFINE_list('only', [], 'Faults; all, if none is named.')
_LANES = flags.DEFINE_integer('lanes', 1, 'Runs at once.', lower_bound=1)
_STEPS = flags.DEFINE_integer('steps', 500, 'Of a run.', lower_bound=1)
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')
_RUN = flags.DEFINE_string('run', None, 'Make one run alone: FAULT_DOSE_SEED.')

AUTOENCODER = 'shared'


def configuration(folder, data, seed, order, **autoencoder):
  """The config of a run."""
  from vdm.config import recipes

  config = recipes.scenes()
  config.seed = int(seed)
  config.model.update(num_classes=8, label_dropout=0.15)
  config.data.update(root=str(folder / data), stride=2)
  config.autoencoder.update(autoencoder)
  config.sample.update(num=8, final=8)
  config.score.every = 0
  config.train.update(
    order=(order,),
    cpu_devices=1,
    eval_every=5000,
    preview_every=5000,
    tensorboard=False,
  )
  config.stages.video.update(frames=4, steps=_STEPS.value)
  return config


def train_autoencoder(folder):
  """Trains the one that all runs share."""
  from vdm import train

  config = configuration(folder, 'data', 0, 'autoencoder')
  code = train.train(config, folder / AUTOENCODER)
  if code:
    sys.exit(code)


def make_run(folder, name):
  """Trains and diagnoses one run with its fault."""
  from vdm import train
  from vdm.evaluation import diagnosis

  fault, dose, seed = name.split('_')
  data = 'data'
  if fault in planted.FAULTS:
    planting = planted.FAULTS[fault]
    if planting.data:
      data = f'data_{fault}_{dose}'
    planting.plant(planting.amount(dose))
  load = str(folder / AUTOENCODER)
  config = configuration(folder, data, seed, 'video', load=load)
  code = train.train(config, folder / name)
  if code:
    sys.exit(code)
  diagnosis.diagnose(folder / name)


def call(arguments, log):
  """Starts this program, with the output in a file."""
  command = [
    sys.executable,
    __file__,
    f'--folder={_FOLDER.value}',
    f'--steps={_STEPS.value}',
    *arguments,
  ]
  with open(log, 'w') as output:
    return subprocess.Popen(command, stdout=output, stderr=output)


def diagnosed(folder, name):
  """Whether a run is done."""
  return (folder / name / 'diagnosis.json').exists()


def make_runs(folder, names):
  """Makes all runs that are missing, some at once."""
  waiting = [x for x in names if not diagnosed(folder, x)]
  running = {}
  while waiting or running:
    while waiting and len(running) < _LANES.value:
      name = waiting.pop(0)
      running[name] = call([f'--run={name}'], folder / f'{name}.log')
      print(name, len(waiting), 'are left', flush=True)
    for name, process in [*running.items()]:
      try:
        code = process.wait(timeout=1)
      except subprocess.TimeoutExpired:
        continue
      del running[name]
      if code:
        print(f'{name} failed: see {folder / name}.log', flush=True)


def judged(folder, name):
  """A row of the record."""
  from vdm.evaluation import ailments

  fault, dose, seed = name.split('_')
  row = {'fault': fault, 'dose': dose, 'seed': int(seed)}
  result = json.loads((folder / name / 'diagnosis.json').read_text())
  numbers = {k: v for k, v in result['numbers'].items() if k != 'levels'}
  found = [x.name for x in ailments.judge(result['numbers'])]
  row |= {'found': found, 'numbers': numbers}
  if fault in planted.FAULTS:
    planting = planted.FAULTS[fault]
    row['planted'] = planting.meaning.format(planting.amount(dose))
    row['first'] = found[:1] == [planting.finding]
  return row


def show(rows):
  """Prints what was found."""
  for row in rows:
    right = {True: 'right', False: 'wrong'}.get(row.get('first'), '')
    names = ', '.join(row['found'] or ['nothing'])
    print(f'{row["fault"]:12}{row["dose"]:8}{row["seed"]:3}  {right:6} {names}')


def summary(rows):
  """How many faults are named first, by seed and dose; and healthy runs."""
  counts = {}
  for row in rows:
    key = f'{row["dose"]} {row["seed"]}'
    if row['fault'] != 'healthy':
      named, total = counts.get(key, (0, 0))
      counts[key] = named + bool(row.get('first')), total + 1
  healthy = [row for row in rows if row['fault'] == 'healthy']
  return {
    'named_first': {key: list(pair) for key, pair in counts.items()},
    'healthy': len(healthy),
    'healthy_with_findings': sum(bool(row['found']) for row in healthy),
  }


def main(argv):
  del argv
  folder = pathlib.Path(_FOLDER.value)
  folder.mkdir(parents=True, exist_ok=True)
  if _RUN.value == AUTOENCODER:
    train_autoencoder(folder)
    return
  if _RUN.value:
    make_run(folder, _RUN.value)
    return
  faults = _ONLY.value or list(planted.FAULTS)
  names = [
    *(f'healthy_none_{seed}' for seed in _HEALTHY.value),
    *(f'{f}_full_{s}' for s, f in itertools.product(_SEEDS.value, faults)),
    *(f'{f}_mild_{s}' for s, f in itertools.product(_MILD.value, faults)),
  ]
  log = folder / f'{AUTOENCODER}.log'
  done = (folder / AUTOENCODER / 'autoencoder' / 'report.json').exists()
  if not done and call([f'--run={AUTOENCODER}'], log).wait():
    flag.stop(f'No autoencoder: see {log}.')
  make_runs(folder, names)
  # Those that failed were named.
  rows = [judged(folder, x) for x in names if diagnosed(folder, x)]
  show(rows)
  counts = summary(rows)
  print(json.dumps(counts))
  common.write(_RECORD.value, {**common.environment(), **counts, 'runs': rows})


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
