"""Becomes a command that is asked to stop when its parent dies, by any signal.

  python tied.py PARENT COMMAND ...

Linux sends SIGTERM then; elsewhere the command is left running. It is a program
of its own because a process with threads, such as one that has imported jax,
must not run Python between fork and exec.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
  """Replaces this process.

  Args:
    parent: the process that started it, which may have died meanwhile.
    command: the program and its arguments.
  """
  if sys.platform == 'linux':
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
      sys.exit(-signal.SIGTERM)
  os.execvp(command[0], command)


if __name__ == '__main__':
  main(int(sys.argv[1]), sys.argv[2:])
