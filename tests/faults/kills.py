"""One run that is killed several times, and the outcome."""

import dataclasses
import pathlib
import shutil
import signal
import time

import harness

# How often a phase may occur after a start before the kill; few enough for a
# run to be killed several times.
OCCURRENCES = {
  'compile': 1,
  'evaluation': 2,
  'sampling': 2,
  'save': 3,
  'border': 1,
  'plain': 6,
}


@dataclasses.dataclass
class Kill:
  """One kill and the start after it, an entry of the record.

  Attributes:
    signal: its name.
    wanted: the intended phase.
    hit: the phase that was hit.
    workers: number of processes that read data.
    saved: newest step whose save was complete.
    logged: newest step in the log.
    resumed: the step that the next start resumed from.
    problems: sentences, [] if there are none.
    seconds: from the start that was killed to the kill.
  """

  signal: str
  wanted: str
  hit: str
  workers: int
  saved: int
  logged: int
  resumed: int | None
  problems: list[str]
  seconds: float


def run_with_kills(workdir, cache, reference, plan, rng, **trainer):
  """Trains to the end through kills; every start is the same command.

  Args:
    workdir: of the run; created.
    cache: folder of compiled programs. A run gets a copy of it, or an empty one
      to be killed while it compiles. The files that a killed run left, perhaps
      truncated, stay for the next start, which finds the missing ones again.
    reference: `harness.Result` of the uninterrupted run.
    plan: [(phase, workers, name of the signal), ...], one kill each.
    rng: np.random.Generator.
    **trainer: for `harness.Trainer`.

  Returns:
    (kills, problems): [`Kill`], and problems at the end.
  """
  workdir, cache, kills = pathlib.Path(workdir), pathlib.Path(cache), []
  own_cache = workdir.with_name(workdir.name + '_cache')
  shutil.copytree(cache, own_cache)
  open_kills = []  # (kill, evidence) that no start has resumed from yet.

  def start(workers):
    return harness.Trainer(
      workdir,
      f'--config.data.root={workdir.parent / "data"}',
      f'--config.data.workers={workers}',
      **trainer,
      JAX_COMPILATION_CACHE_DIR=str(own_cache),
    )

  def check_resume(run):
    """Checks the step that a start resumed from, if it logged one."""
    resumed = harness.resumed_from(run)
    if resumed is None:
      return
    for kill, left in open_kills:
      kill.resumed = resumed
      kill.problems += harness.problems_of_resume(left, resumed)
    open_kills.clear()

  for wanted, workers, name in plan:
    if wanted == 'compile':
      shutil.rmtree(own_cache)
      own_cache.mkdir()
    start_time = time.monotonic()
    run = start(workers)
    occurrence = int(rng.integers(OCCURRENCES[wanted])) + 1
    number = signal.Signals[name]
    hit = harness.kill_in(run, wanted, rng, occurrence, number)
    check_resume(run)
    for path in cache.iterdir():
      if not (own_cache / path.name).exists():
        shutil.copy(path, own_cache)
    if hit is None:  # It ended before the phase occurred.
      if run.process.returncode:
        return kills, [f'exit code {run.process.returncode}: {run.end()}']
      break
    left = harness.evidence(workdir)
    kill = Kill(
      signal=name,
      wanted=wanted,
      hit=hit,
      workers=workers,
      saved=left.saved,
      logged=left.logged,
      resumed=None,
      problems=run.survivors(),
      seconds=round(time.monotonic() - start_time, 1),
    )
    if number != signal.SIGKILL:
      kill.problems += harness.problems_of_stop(run, left)
    kill.problems += harness.problems_of_rows(left.rows, reference.rows)
    kills.append(kill)
    open_kills.append((kill, left))
  run = start(0)
  code = run.wait()
  check_resume(run)
  problems = run.survivors()
  if open_kills:
    problems.append('the last start did not log where it resumed')
  if code:
    problems.append(f'exit code {code}: {run.end()}')
  else:
    problems += harness.problems_of_result(harness.result(workdir), reference)
  shutil.rmtree(own_cache)
  return kills, problems


def uninterrupted(workdir, cache):
  """Trains to the end without a kill; fills the cache of compiled programs.

  Returns:
    `harness.Result`.
  """
  workdir = pathlib.Path(workdir)
  run = harness.Trainer(
    workdir,
    f'--config.data.root={workdir.parent / "data"}',
    JAX_COMPILATION_CACHE_DIR=str(cache),
  )
  if run.wait() != 0:
    raise RuntimeError(run.printed())
  assert harness.resumed_from(run) == 0
  return harness.result(workdir)


def random_plan(rng, wanted, names=('SIGKILL',)):
  """Returns kills in random order; a third of them with worker processes."""
  return [
    (str(phase), int(2 * (rng.random() < 1 / 3)), str(rng.choice(names)))
    for phase in rng.permutation(wanted)
  ]
