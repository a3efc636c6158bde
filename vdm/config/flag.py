"""The flag --config and the one sentence a command stops with.

A command defines its flags, `define()`s --config if it needs one and runs as
`app.run(main, flags_parser=flag.parse)`:

  python -m vdm.main --config configs/ucf101.py:smoke --config.sample.steps=8

ml_collections reads the file and sets the overrides; what it and absl answer
to a mistake (tracebacks, silence to a stray word) is replaced here by exit
code 2 and one sentence that names the nearest valid name.
"""

import ast
from collections.abc import Iterable, Iterator, Sequence
import os
import pathlib
import sys
from typing import Any, NoReturn

from absl import flags
from ml_collections import config_flags

from vdm.config import check
from vdm.config import serialize
from vdm.config import suggest

USAGE_ERROR = 2  # Exit code: the command line or the configuration is wrong.

# ml_collections looks overrides up here instead of in sys.argv.
_argv: list[str] = []
# Flags without which a command does not start.
_required: set[str] = set()


class _UsageError(Exception):
  """Holds the sentence to stop with."""


def define(*, required: bool = True) -> flags.FlagHolder:
  """Defines --config; its value is a locked ConfigDict, or None."""
  holder = config_flags.DEFINE_config_file(
    'config',
    None,
    'Configuration file, with :VARIANT after it if it takes one. '
    '--config.KEY=VALUE overrides a key.',
    lock_config=True,
    sys_argv=_argv,
  )
  if required:
    _required.add('config')
  return holder


def parse(argv: Sequence[str]) -> list[str]:
  """Parses the command line, for `app.run(main, flags_parser=parse)`.

  Args:
    argv: the command line, the program's name first.

  Returns:
    [the program's name].

  Exits:
    with code 2 and one sentence on stderr if anything is wrong.
  """
  try:
    _argv[:] = argv
    keys = {}
    if 'config' in flags.FLAGS:
      keys = _check_config_arguments(argv[1:])
    _check_names(argv[1:], keys)
    rest = flags.FLAGS(list(argv))
    if len(rest) > 1:
      raise _UsageError(
        f'{rest[1]!r} belongs to no flag: write --flag=value, with quotes '
        'around a value with spaces.'
      )
    if 'config' in flags.FLAGS and flags.FLAGS.config is not None:
      check.validate(flags.FLAGS.config)
  except (_UsageError, ValueError, flags.Error) as error:
    stop(error)
  return rest


def stop(problem: object) -> NoReturn:
  """Ends the program with exit code 2 and `problem` as one line on stderr."""
  sys.stderr.write(' '.join(str(problem).split()) + '\n')
  sys.exit(USAGE_ERROR)


def _arguments(argv: Sequence[str]) -> Iterator[tuple[str, str | None, str]]:
  """Yields (name, value after '=' or None, next argument or '') of flags."""
  for index, argument in enumerate(argv):
    if argument == '--':
      return
    # A negative number is the value of the flag before it.
    if argument.startswith('-') and argument.lstrip('-')[:1].isalpha():
      name, equals, value = argument.lstrip('-').partition('=')
      following = argv[index + 1] if index + 1 < len(argv) else ''
      yield name, value if equals else None, following


def _check_config_arguments(argv: Sequence[str]) -> dict[str, Any]:
  """Checks the file, each override's key and value; returns the flat keys."""
  given = [
    following if value is None else value
    for name, value, following in _arguments(argv)
    if name == 'config'
  ]
  if not given:
    if 'config' in _required and not {'help', 'helpfull', 'helpshort'} & {
      name for name, _, _ in _arguments(argv)
    }:
      raise _UsageError(
        '--config is missing: name a file, as in --config configs/synthetic.py.'
      )
    return {}
  defaults = serialize.flatten(_load(given[-1]))
  groups = {
    key[:end]
    for key in defaults
    for end, character in enumerate(key)
    if character == '.'
  }
  for name, value, following in _arguments(argv):
    negated = name.startswith('noconfig.')
    if not negated and not name.startswith('config.'):
      continue
    key = name.split('.', 1)[1]
    if key in groups:
      raise _UsageError(
        f'--{name} is a group of keys: set one of them, such as '
        f'--config.{next(k for k in defaults if k.startswith(key + "."))}.'
      )
    if key not in defaults:
      raise _UsageError(
        f'--{name} is not a key of the configuration: did you mean '
        f'--config.{suggest.nearest(key, defaults)}?'
      )
    is_switch = isinstance(defaults[key], bool)
    if negated and not is_switch:
      raise _UsageError(f'--{name}: config.{key} is not True or False.')
    if value is None and not is_switch:
      value = following
    if value is not None:
      _check_override(key, value, defaults[key])
  return defaults


def _load(value: str) -> Any:
  """Returns the configuration of `path` or `path:variant`."""
  path = value.partition(':')[0]
  if not os.path.isfile(path):
    near = sorted(map(str, pathlib.Path('configs').glob('*.py')))
    hint = f': did you mean {suggest.nearest(path, near)}?' if near else '.'
    raise _UsageError(f'--config={value}: there is no file {path!r}{hint}')
  try:
    return config_flags.config_flags.ConfigFileFlagParser('config').parse(value)
  except (TypeError, ValueError, AttributeError, KeyError) as error:
    # ml_collections adds the traceback to the message; its cause is the error.
    cause = error.__cause__ or error.__context__ or error
    raise _UsageError(f'--config={value}: {cause}') from error


def _check_override(key: str, text: str, like: Any) -> None:
  """Checks that ml_collections will read `text` as the type of `like`."""

  def wrong(kind):
    return _UsageError(f'--config.{key}={text} is wrong: it takes {kind}.')

  if isinstance(like, bool):
    if text.lower() not in ('true', 'false', 't', 'f', '1', '0'):
      raise wrong('true or false')
  elif isinstance(like, int):
    try:
      int(text)
    except ValueError:
      raise wrong('an integer, as in 100') from None
  elif isinstance(like, float):
    try:
      float(text)
    except ValueError:
      raise wrong('a number, as in 0.5') from None
  elif isinstance(like, tuple):
    try:
      good = isinstance(ast.literal_eval(text), tuple)
    except (SyntaxError, ValueError):
      good = False
    if not good:
      raise wrong("a tuple, as in '(1,2)' or '(1,)'")


def _check_names(argv: Sequence[str], keys: Iterable[str]) -> None:
  """Checks that every flag is defined; overrides have been checked before."""
  flags_by_module = flags.FLAGS.flags_by_module_dict()
  own = [
    flag.name
    for module, defined in flags_by_module.items()
    if module.startswith(('vdm', 'ml_collections')) or module == sys.argv[0]
    for flag in defined
  ] + [f'config.{key}' for key in keys]
  known = {*flags.FLAGS, 'flagfile', 'undefok'}
  for name, _, _ in _arguments(argv):
    if name.startswith(('config.', 'noconfig.')) and 'config' in known:
      continue
    if name not in known and name.removeprefix('no') not in known:
      hint = f': did you mean --{suggest.nearest(name, own)}?'
      raise _UsageError(f'--{name} is not a flag{hint if own else "."}')
