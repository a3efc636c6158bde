"""Says where the time of a train step goes: by kind of kernel and by source.

  python benchmarks/step_kernels.py --config configs/ucf101.py --stage video

Three steps on random clips are traced after three that are not. Every kernel
is named by the compiler: what it computes is in its name, and which function of
this package asked for it in the compiled program, by the innermost one on the
stack. Kernels of libraries (convolutions, matrix products) and copies have no
such name and are counted by kind alone. For GPUs, where kernels run one after
the other and add up to the step. A CPU overlaps them, and has few names that
say what is computed: read its functions as a rough guide, and not its kinds.
"""

import os
import sys
import tempfile

from absl import app
from absl import flags
import common
import traces

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from vdm.common import tables
from vdm.config import flag

_CONFIG = flag.define()
_STAGE = flags.DEFINE_string('stage', 'video', 'Name of a diffusion stage.')
_BATCH = flags.DEFINE_integer('batch', None, "By default the stage's own.")
_ROWS = flags.DEFINE_integer('rows', 20, 'Functions that are shown.')
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')

STEPS = 3


def shown(rows, title):
  total = sum(row['milliseconds'] for row in rows)
  lines = [
    [
      row['name'],
      f'{row["milliseconds"]:.2f}',
      f'{100 * row["milliseconds"] / total:.1f}',
      f'{row["kernels"]:.0f}',
    ]
    for row in rows[: _ROWS.value]
  ]
  return tables.lay_out([[title, 'ms', '%', 'kernels'], *lines])


def main(argv):
  del argv
  import jax

  config = _CONFIG.value
  stage = common.stage_of(config, _STAGE.value)
  step = common.compile_step(config, stage, _BATCH.value or stage.batch)
  state = step.state

  def run():
    nonlocal state
    for _ in range(STEPS):
      state, metrics = step.run(state, *step.arguments)
    jax.block_until_ready(metrics)

  run()
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      run()
    found = traces.kernels(folder)
  functions = traces.sources(step.run.as_text())
  kinds = traces.grouped(found, traces.kind, STEPS)
  places = traces.grouped(
    found,
    lambda name: functions.get(
      traces.spelled(name), f'library: {traces.kind(name)}'
    ),
    STEPS,
  )
  print(shown(kinds, 'kind'), shown(places, 'asked for by'), sep='\n\n')
  record = {
    **common.environment(),
    'batch': stage.batch,
    'compute_dtype': config.train.compute_dtype,
    'kinds': kinds,
    'functions': places,
  }
  common.write(_RECORD.value, record)


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
