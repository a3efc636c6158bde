"""Records of the fault tests: the environment, reading, writing, tables."""

import importlib.metadata
import json
import os
import pathlib
import platform
import sys

PACKAGES = ('jax', 'jaxlib', 'flax', 'orbax-checkpoint', 'grain', 'numpy')


def environment():
  """Returns hardware, versions and the command."""
  return {
    'command': _command(sys.argv),
    'processor': _processor(),
    'cores': os.cpu_count(),
    'python': platform.python_version(),
    **{name: importlib.metadata.version(name) for name in PACKAGES},
  }


def read(path):
  """Returns a record, or None if there is none yet."""
  path = pathlib.Path(path)
  return json.loads(path.read_text()) if path.exists() else None


def write(path, record):
  """Replaces a record atomically."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(path.name + '.part')
  part.write_text(json.dumps(record, indent=1) + '\n')
  part.replace(path)


def table(names, rows):
  """Returns a Markdown table."""
  lines = [names, ['---'] * len(names), *rows]
  return '\n'.join('| ' + ' | '.join(map(str, row)) + ' |' for row in lines)


def _command(argv):
  """Returns the command without options that concern this machine only."""
  script = '/'.join(pathlib.Path(argv[0]).resolve().parts[-3:])
  kept, skip = [], False
  for word in argv[1:]:
    if skip or word.startswith(('--folder', '--record', '--minutes')):
      skip = not skip and '=' not in word
      continue
    kept.append(word)
  return ' '.join(['python', script, *kept])


def _processor():
  try:
    text = pathlib.Path('/proc/cpuinfo').read_text()
  except OSError:
    return platform.processor()
  names = [x for x in text.splitlines() if x.startswith('model name')]
  return names[0].partition(':')[2].strip() if names else platform.machine()
