"""Lists the commands: python -m vdm."""

import ast
import pathlib
import sys

# In the order in which a person needs them.
COMMANDS = (
  'prepare',
  'plan',
  'main',
  'sample',
  'evaluate',
  'report',
  'diagnose',
  'compare',
  'sweep',
  'averages',
  'export',
  'replay',
)


def main() -> None:
  lines = [f'  python -m vdm.{name:<9} {summary(name)}' for name in COMMANDS]
  text = '\n'.join([*lines, '', 'Each has --help. README.md has a first run.'])
  if len(sys.argv) > 1 and sys.argv[1].lstrip('-') not in ('help', 'h', '?'):
    print(f'{sys.argv[1]!r} is no command. There are\n{text}', file=sys.stderr)
    sys.exit(2)
  print(text)


def summary(name: str) -> str:
  """Returns what a command does, from its docstring; imports nothing."""
  source = pathlib.Path(__file__).with_name(f'{name}.py').read_text()
  first = ast.get_docstring(ast.parse(source)).splitlines()[0]
  return first.partition(': python')[0].rstrip('.')


if __name__ == '__main__':
  main()
