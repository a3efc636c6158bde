"""Runs the tiny run in several processes, with its batches traced."""

import json
import pathlib
import signal
import sys
import time

import harness

# Sums in another order differ by some 1e-7 of their terms. Adam divides a
# gradient by its own size, so if a gradient nearly cancels, rounding decides
# the direction of an update; the loss does not depend on such a parameter in
# first order, so it differs by the order of the learning rate squared times
# those parameters' share. Largest seen in 20 steps at a rate of 1e-2: see the
# record. A wrong batch, key or reduction changes a loss by 1e-2 or more.
TOLERANCE = 1e-3
COMMAND = [sys.executable, str(pathlib.Path(__file__).with_name('traced.py'))]


def start_case(workdir, cache, case, *options, **environ):
  """Starts the processes of one case.

  Args:
    workdir: of the run, or a list with one for each process.
    cache: of compiled programs.
    case: (processes, devices of each, fsdp).
    *options: further flags.
    **environ: environment variables; `each` is a list of each process's own
      flags.
  """
  processes, devices, fsdp = case
  whole = workdir[0] if isinstance(workdir, list) else workdir
  return harness.start_several(
    workdir,
    processes,
    devices,
    f'--config.data.root={pathlib.Path(whole).parent / "data"}',
    f'--config.train.fsdp={fsdp}',
    *options,
    command=COMMAND,
    JAX_COMPILATION_CACHE_DIR=str(cache),
    **environ,
  )


def run_case(workdir, cache, case, stop_at=None):
  """Trains to the end, or until a step is logged and one process signalled.

  Returns:
    The exit codes.
  """
  runs = start_case(workdir, cache, case)
  if stop_at:
    wait_for_step(runs, workdir, stop_at)
    runs[-1].process.send_signal(signal.SIGTERM)
  codes = [run.wait(900) for run in runs]
  if set(codes) - {0, 75}:
    raise RuntimeError('\n'.join(run.end() for run in runs))
  return codes


def wait_for_step(runs, workdir, step):
  """Returns when a step is in the log."""
  while all(run.process.poll() is None for run in runs):
    rows = harness.tail_rows(pathlib.Path(workdir))
    if max((r['step'] for r in rows if 'loss' in r), default=0) >= step:
      return
    time.sleep(0.02)
  raise RuntimeError('\n'.join(run.end() for run in runs))


def batches(workdir):
  """Returns {step: CRCs of the global batch, in the order of its rows}."""
  found = {}
  paths = sorted(pathlib.Path(workdir).glob('crc_*.jsonl'))
  for path in paths:
    # Of a step that was repeated, the newest line, which must be the same.
    lines = dict(map(json.loads, path.read_text().splitlines()))
    for step, crc in lines.items():
      found.setdefault(step, []).extend(crc)
  return found


def largest_difference(rows, reference):
  """Returns the largest relative difference of losses, evaluations included."""
  assert rows.keys() == reference.keys(), rows.keys() ^ reference.keys()
  return max(
    abs(values[kind] - reference[step, kind][kind])
    / abs(reference[step, kind][kind])
    for (step, kind), values in rows.items()
    if kind in ('loss', 'val_loss')
  )


def rows(workdir):
  """Returns {(step, kind): values} of a run's log."""
  return harness.comparable(harness.writer.read_rows(workdir))
