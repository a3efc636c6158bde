"""One run that is killed again and again, and what came of it."""

import dataclasses
import pathlib
import shutil
import signal
import time

import harness

# How often a phase may come after a start before the kill; few enough for a run
# to be killed several times.
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
  """One kill and the start after it, as it goes into the record.

  Attributes:
    signal: its name.
    wanted: the phase that was aimed at.
    hit: the phase that the run was in.
    workers: processes that read data.
    saved: newest step whose save was complete.
    logged: newest step in the log.
    resumed: the step that the next start went on from.
    problems: what was wrong, [] if nothing.
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
  """Runs to the end through kills; every start is the same command.

  Args:
    workdir: of the run; made.
    cache: folder of compiled programs. A run gets a copy of it, and where it is
      to be killed as it compiles, nothing. What the killed one left, half a
      file maybe, stays for the next start, which finds the rest again.
    reference: `harness.Result` of the uninterrupted run.
    plan: [(phase, workers, name of the signal), ...], one kill each.
    rng: np.random.Generator.
    **trainer: for `harness.Trainer`.

  Returns:
    (kills, problems): [`Kill`], and what was wrong at the end.
  """
  workdir, cache, kills = pathlib.Path(workdir), pathlib.Path(cache), []
  own_cache = workdir.with_name(workdir.name + '_cache')
  shutil.copytree(cache, own_cache)
  open_ends = []  # (kill, evidence) whose resume has not been seen yet.

  def start(workers):
    return harness.Trainer(
      workdir,
      f'--config.data.root={workdir.parent / "data"}',
      f'--config.data.workers={workers}',
      **trainer,
      JAX_COMPILATION_CACHE_DIR=str(own_cache),
    )

  def look_back(run):
    """Judges where a start went on, if it came as far as to say so."""
    resumed = harness.resumed_from(run)
    if resumed is None:
      return
    for kill, left in open_ends:
      kill.resumed = resumed
      kill.problems += harness.problems_of_resume(left, resumed)
    open_ends.clear()

  for wanted, workers, name in plan:
    if wanted == 'compile':
      shutil.rmtree(own_cache)
      own_cache.mkdir()
    began = time.monotonic()
    run = start(workers)
    occurrence = int(rng.integers(OCCURRENCES[wanted])) + 1
    number = signal.Signals[name]
    hit = harness.kill_in(run, wanted, rng, occurrence, number)
    look_back(run)
    for path in cache.iterdir():
      if not (own_cache / path.name).exists():
        shutil.copy(path, own_cache)
    if hit is None:  # It came to its end before the phase did.
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
      seconds=round(time.monotonic() - began, 1),
    )
    if number != signal.SIGKILL:
      kill.problems += harness.problems_of_stop(run, left)
    kill.problems += harness.problems_of_rows(left.rows, reference.rows)
    kills.append(kill)
    open_ends.append((kill, left))
  run = start(0)
  code = run.wait()
  look_back(run)
  problems = run.survivors()
  if open_ends:
    problems.append('the last start did not say where it went on')
  if code:
    problems.append(f'exit code {code}: {run.end()}')
  else:
    problems += harness.problems_of_result(harness.result(workdir), reference)
  shutil.rmtree(own_cache)
  return kills, problems


def uninterrupted(workdir, cache):
  """Runs to the end without a kill; fills the cache of compiled programs.

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
  """Kills in some phases, in a random order; a third has worker processes."""
  return [
    (str(phase), int(2 * (rng.random() < 1 / 3)), str(rng.choice(names)))
    for phase in rng.permutation(wanted)
  ]
