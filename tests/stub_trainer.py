"""Stands in for vdm.main in tests of sweeps: writes a run in two parts.

  python stub_trainer.py vdm.main --config=FILE --config.KEY=VALUE --workdir=W

STUB_SECONDS: how long it takes between the parts. STUB_FAIL: exits with 1 where
the workdir contains this. Each start adds its workdir to calls.txt, which the
sweep's folder has to have. Losses are lowest at a learning rate of 0.01. With
--stop_at it writes the log up to this step.
"""

import json
import math
import os
import pathlib
import sys
import time

import written_runs

from vdm.config import flag
from vdm.config import serialize


def main(arguments):
  words = dict(word.removeprefix('--').split('=', 1) for word in arguments)
  workdir = pathlib.Path(words.pop('workdir'))
  words.pop('config')
  stop_at = int(words.pop('stop_at', 10**9))
  config = written_runs.make_config()
  known = serialize.flatten(config)
  changes = {}
  for name, text in words.items():
    key = name.removeprefix('config.')
    changes[key] = flag.read_value(key, text, known)
  config.update_from_flattened_dict(changes)
  root = next(p for p in workdir.parents if (p / 'calls.txt').exists())
  with (root / 'calls.txt').open('a') as file:
    file.write(f'{workdir.relative_to(root)}\n')
  if os.environ.get('STUB_FAIL', '\n') in str(workdir):
    sys.exit(1)
  effect = 0.05 * (config.optim.b1 == 0.5)
  effect += abs(math.log10(config.stages.video.learning_rate / 0.01))
  rows = written_runs.rows_of(config, effect)
  rows = [row for row in rows if row['step'] <= stop_at]
  workdir.mkdir(parents=True, exist_ok=True)
  serialize.save(config, workdir / 'config.json')
  lines = [json.dumps(row) + '\n' for row in rows]
  (workdir / 'metrics.jsonl').write_text(''.join(lines[: len(lines) // 2]))
  time.sleep(float(os.environ.get('STUB_SECONDS', 0)))
  if stop_at < written_runs.config_steps(config):
    (workdir / 'metrics.jsonl').write_text(''.join(lines))
    return
  if 'autoencoder' in config.train.order:
    (workdir / 'autoencoder').mkdir(exist_ok=True)
    (workdir / 'autoencoder/report.json').write_text('{"mean": {}}')
  agreement = 0.9 - effect + 0.001 * config.seed
  written_runs.write(workdir, config, rows, agreement=agreement)


if __name__ == '__main__':
  main(sys.argv[2:])
