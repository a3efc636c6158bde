"""The flag --config, and one sentence for every mistake on a command line.

A command defines its flags, `define()`s --config if it needs one and runs as
`app.run(main, flags_parser=flag.parse)`:

  python -m vdm.main --config configs/ucf101.py:smoke --config.sample.steps=8

ml_collections reads the file and sets the overrides. What it and absl answer
to a mistake (tracebacks, silence about a stray word) is replaced here by exit
code 2 and one sentence that names the nearest valid name.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
import itertools
import os
import pathlib
import runpy
import sys
import textwrap
from typing import Any, NoReturn

from absl import flags
from ml_collections import config_flags
from ml_collections import ConfigDict

from vdm.common import errors
from vdm.config import check
from vdm.config import serialize
from vdm.config import suggest

WHERE_KEYS = (
  'the keys, their defaults and what they mean are in vdm/config/schema.py'
)
USAGE_ERROR = errors.USAGE_ERROR


def define() -> flags.FlagHolder:
  """Defines --config, which is then required; its value is locked."""
  return config_flags.DEFINE_config_file(
    'config',
    None,
    'Configuration file, as in --config configs/synthetic.py, with :VARIANT '
    'after it if it takes one. --config.KEY=VALUE overrides a key: '
    f'{WHERE_KEYS}.',
    lock_config=True,
  )


def parse(argv: Sequence[str], *, words: bool = False) -> list[str]:
  """Parses the command line, for `app.run(main, flags_parser=parse)`.

  Args:
    argv: the command line, the program's name first.
    words: whether words that belong to no flag are allowed.

  Returns:
    [the program's name, and these words].

  Exits:
    with code 2 and one sentence on stderr if anything is wrong; with code 0
    after the text of --help.
  """
  if wants_help(argv):
    print(_help())
    sys.exit()
  try:
    _check_arguments(list(_arguments(argv[1:])))
    rest = _read_flags([argv[0], *_config_first(argv)])
    if len(rest) > 1 and not words:
      raise errors.UsageError(
        f'{rest[1]!r} belongs to no flag: write --flag=value, with quotes '
        'around a value with spaces.'
      )
    if 'config' in flags.FLAGS:
      check.validate(flags.FLAGS.config)
  except (ValueError, flags.Error) as error:
    stop(error)
  return rest


def overrides() -> dict[str, Any]:
  """Returns {key: value} of what the command line changes in its file."""
  given = flags.FLAGS['config']
  before = serialize.flatten(_load(given.config_filename))
  after = serialize.flatten(given.value)
  return {k: v for k, v in after.items() if before.get(k) != v}


def as_argument(key: str, value: Any) -> str:
  """Returns the argument of a command that gives a key a value."""
  text = str(value).lower() if isinstance(value, bool) else str(value)
  return f'--config.{key}={text}'


def read_value(key: str, text: str, values: Mapping[str, Any]) -> Any:
  """Returns the value of a key that a text stands for.

  Args:
    key: as in 'optim.eps'.
    text: as after '--config.KEY='.
    values: {key: value} of the configuration, whose types count.

  Raises:
    UsageError: there is no such key, or it takes no such value.
  """
  _check_override(f'config.{key}', text, '', values)
  read = _READERS[type(values[key])][0]
  return read(text)


def wants_help(argv: Sequence[str]) -> bool:
  """Returns whether a command line asks for help."""
  names = ('help', 'helpshort', 'helpfull', '?')
  return any(x.startswith('-') and x.lstrip('-') in names for x in argv[1:])


def _help() -> str:
  """Returns what --help prints: the command's docstring and its flags."""
  lines = [(sys.modules['__main__'].__doc__ or '').strip(), '', 'Flags:']
  for flag in _own_flags():
    default = '' if flag.default is None else f' (default: {flag.default})'
    lines += textwrap.wrap(
      f'--{flag.name}  {flag.help}{default}',
      width=80,
      initial_indent='  ',
      subsequent_indent='      ',
      break_on_hyphens=False,
    )
  if 'config' not in flags.FLAGS:
    text = (
      'The settings are those of the run, in its config.json. --config is for '
      f'vdm.main, vdm.plan, vdm.prepare and vdm.sweep; {WHERE_KEYS}.'
    )
    lines += ['', *textwrap.wrap(text, width=80)]
  return '\n'.join(lines)


def _own_flags() -> list[flags.Flag]:
  """Returns the flags of the command, without absl's and other libraries'."""
  modules = flags.FLAGS.flags_by_module_dict().items()
  return [
    flag
    for module, defined in modules
    if module.startswith(('vdm', 'ml_collections')) or module == sys.argv[0]
    for flag in defined
  ]


def stop(problem: object) -> NoReturn:
  """Ends the program with exit code 2 and `problem` as one line on stderr."""
  sys.stderr.write(' '.join(str(problem).split()) + '\n')
  sys.exit(USAGE_ERROR)


def _arguments(argv: Sequence[str]) -> Iterator[tuple[str, str | None, str]]:
  """Yields (name, value after '=' or None, next argument or '') of flags."""
  for argument, following in zip(argv, [*argv[1:], '']):
    if argument == '--':
      return
    # A negative number is the value of the flag before it.
    if argument.startswith('-') and argument.lstrip('-')[:1].isalpha():
      name, equals, value = argument.lstrip('-').partition('=')
      yield name, value if equals else None, following


def _read_flags(argv: list[str]) -> list[str]:
  """Returns `flags.FLAGS(argv)`; ml_collections looks into sys.argv as well."""
  given, sys.argv = sys.argv, argv
  try:
    return flags.FLAGS(argv)
  finally:
    sys.argv = given


def _config_first(argv: Sequence[str]) -> list[str]:
  """Returns the arguments, with --config before all that overrides it.

  ml_collections reads the file where it meets --config, and refuses an override
  that comes earlier.
  """
  rest, first = [], []
  arguments = iter(argv[1:])
  for argument in arguments:
    if argument == '--':
      rest.append(argument)
      break
    if argument in ('-config', '--config'):
      first += [argument, *itertools.islice(arguments, 1)]
    elif argument.startswith(('-config=', '--config=')):
      first.append(argument)
    else:
      rest.append(argument)
  return [*first, *rest, *arguments]


def _check_arguments(given: Sequence[tuple[str, str | None, str]]) -> None:
  """Checks that flags and keys exist and that values of keys are readable."""
  values = {}  # {key: its value in the configuration file}
  if 'config' in flags.FLAGS:
    paths = [
      following if value is None else value
      for name, value, following in given
      if name == 'config'
    ]
    if paths:
      values = serialize.flatten(_load(paths[-1]))
    else:
      raise errors.UsageError(
        '--config is missing: name a file, as in --config configs/synthetic.py.'
      )
  own = [flag.name for flag in _own_flags()]
  own += [f'config.{key}' for key in values]
  known = {*flags.FLAGS, 'flagfile', 'undefok'}
  for name, value, following in given:
    if values and name.startswith(('config.', 'noconfig.')):
      _check_override(name, value, following, values)
    elif name not in known and name.removeprefix('no') not in known:
      hint = suggest.hint(name, own, '--')
      raise errors.UsageError(f'--{name} is not a flag{hint}')


def _load(value: str) -> Any:
  """Returns the configuration of `path` or `path:variant`."""
  path, *variant = value.split(':', 1)
  if not os.path.isfile(path):
    # By their stems: the folder and the suffix are alike.
    files = {x.stem: str(x) for x in sorted(pathlib.Path('configs').glob('*'))}
    files = {stem: x for stem, x in files.items() if x.endswith('.py')}
    near = suggest.nearest(pathlib.Path(path).stem, files)
    hint = (
      f': did you mean {files[near]}?'
      if near
      else suggest.hint('', files.values())
    )
    raise errors.UsageError(
      f'--config={value}: there is no file {path!r}{hint}'
    )
  try:
    module = runpy.run_path(path)
    if 'get_config' not in module:
      raise ValueError('the file has no function get_config')
    config = module['get_config'](*variant)
    if not isinstance(config, ConfigDict):
      raise TypeError(f'get_config returns {config!r:.50}, not a ConfigDict')
    return config
  except (TypeError, ValueError, AttributeError, KeyError) as error:
    raise errors.UsageError(f'--config={value}: {error}') from error
  # It is any Python file, so it may raise anything.
  except (Exception, SystemExit) as error:
    raise errors.UsageError(
      f'--config={value} is not a configuration, see configs/synthetic.py: '
      f'{type(error).__name__}: {error}'
    ) from error


def _check_override(
  name: str, text: str | None, following: str, values: Mapping[str, Any]
) -> None:
  """Checks an override's key, and that ml_collections can read its value."""
  key = name.partition('.')[2]
  inside = [other for other in values if other.startswith(f'{key}.')]
  if inside:
    raise errors.UsageError(
      f'--{name} is a group of keys: set one of them, such as '
      f'--config.{inside[0]}.'
    )
  if key not in values:
    raise errors.UsageError(
      f'--{name} is not a key of the configuration'
      f'{suggest.hint(key, values, "--config.")}'
    )
  kind = type(values[key])
  if kind is not bool and name.startswith('no'):
    raise errors.UsageError(f'--{name}: config.{key} is not True or False.')
  if kind is bool and text is None:
    return
  text = following if text is None else text
  read, example = _READERS[kind]
  try:
    read(text)
  except (SyntaxError, ValueError):
    raise errors.UsageError(
      f'--config.{key}={text} is wrong: it takes {example}.'
    ) from None


def _read_tuple(text: str) -> tuple[Any, ...]:
  value = ast.literal_eval(text)
  if not isinstance(value, tuple):
    raise ValueError(f'{text} is not a tuple.')
  return value


# By the type of a key: what reads its value, and what a value looks like.
_READERS = {
  bool: (flags.BooleanParser().parse, 'true or false'),
  int: (int, 'an integer, as in 100'),
  float: (float, 'a number, as in 0.5'),
  str: (str, 'a string'),
  tuple: (_read_tuple, "a tuple, as in '(1,2)' or '(1,)'"),
}
