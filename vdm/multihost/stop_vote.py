"""How the processes of a run settle where they all stop."""

import threading


class Vote:
  """Settles at which poll all processes stop, whoever was asked to.

  All processes poll at the same points in the same order, but not at the same
  time. One that is asked to stop says so; each then says which poll is the
  first that it has not passed, and the latest of these is where all stop: no
  process has passed it, and all get there. A process that has not polled yet
  has nothing to lose and says 0; if all do, they leave at once.
  """

  def __init__(self, index: int, count: int, put, get, leave):
    """Begins; see `tick`.

    Args:
      index: of this process.
      count: of processes.
      put: (key, text), makes a message known to all.
      get: folder -> {process: text}, what was put under it.
      leave: ends this process.
    """
    self._index, self._count = index, count
    self._put, self._get, self._leave = put, get, leave
    self._lock = threading.Condition()
    self._asked = self._said = False
    self._polls, self._agreed = 0, None

  @property
  def polls(self) -> int:
    """How often this process has polled."""
    return self._polls

  def ask(self):
    """Asks all to stop; from any thread."""
    self._asked = True

  def tick(self):
    """Tells and listens; called again and again by one thread."""
    if self._agreed is not None:
      return
    if not self._said:
      if not self._asked and not self._get('vdm/asked/'):
        return
      if self._asked:
        self._put(f'vdm/asked/{self._index}', 'yes')
      with self._lock:
        self._said = True
        first = self._polls + 1 if self._polls else 0
      self._put(f'vdm/stop/{self._index}', str(first))
    said = self._get('vdm/stop/')
    if len(said) < self._count:
      return
    with self._lock:
      self._agreed = max(map(int, said.values()))
      self._lock.notify_all()
    if self._agreed == 0:
      self._leave()

  def poll(self) -> bool:
    """Whether to stop here; the main thread's."""
    with self._lock:
      self._polls += 1
      if not self._said:
        return False
      # The others' numbers are here within a few beats, or `Watch` ends us.
      while self._agreed is None:
        self._lock.wait()
      return self._polls >= self._agreed
