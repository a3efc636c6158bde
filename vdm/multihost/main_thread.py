"""Where the main thread of this process is, for the log."""

import pathlib
import sys
import threading
import traceback

_COMPILER = ('jax', '_src', 'compiler.py')
_PACKAGE = pathlib.Path(__file__).resolve().parents[1]


def place() -> str:
  """Returns the line of this package that the main thread executes.

  If jax compiles a program there, it says so: that can take minutes.
  """
  main = sys._current_frames().get(threading.main_thread().ident)
  compiling = ''
  for frame, line in traceback.walk_stack(main):
    path = pathlib.Path(frame.f_code.co_filename)
    if path.is_relative_to(_PACKAGE):
      place = path.relative_to(_PACKAGE.parent)
      return f'{place}:{line} ({frame.f_code.co_name}){compiling}'
    if path.parts[-3:] == _COMPILER:
      compiling = ', which compiles'
  return f'another package{compiling}'
