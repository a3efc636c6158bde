"""Prints what to install for an accelerator, as pip reads it.

  python launch/packages.py cuda12

The text of requirements/cuda12.lock, exact versions with hashes, where it is
for this platform and made from today's bounds. Else the bounds themselves,
after a comment that says why: those of requirements.txt, of the extras in
pyproject.toml that a working copy uses, and jax's own extra. `--bounds` prints
these anyway; launch/lock.sh makes the locks from them.

Standard library only: it runs before anything is installed.
"""

import argparse
import hashlib
import pathlib
import platform
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
ACCELERATORS = ('cpu', 'cuda12', 'cuda13', 'tpu')
# Of a working copy; without beam, which is for preparation at scale.
EXTRAS = ('dev', 'gcs', 'hub', 'trackio', 'wandb')
PLATFORM = 'Linux x86_64'  # Where the locks are tested.
MARK = '# Bounds: '  # Begins the line of a lock that has their sha256.


def bounds(accelerator: str, extras: tuple[str, ...] = EXTRAS) -> list[str]:
  """Returns requirements with bounds, sorted."""
  lines = (ROOT / 'requirements.txt').read_text().splitlines()
  found = [line.partition('#')[0].strip() for line in lines]
  text = (ROOT / 'pyproject.toml').read_text()
  optional = tomllib.loads(text)['project']['optional-dependencies']
  for extra in extras:
    found += optional[extra]
  found.append('jax' if accelerator == 'cpu' else f'jax[{accelerator}]')
  return sorted(filter(None, found))


def mark(accelerator: str) -> str:
  """Returns the line by which a lock tells from which bounds it was made."""
  text = '\n'.join(bounds(accelerator))
  return MARK + hashlib.sha256(text.encode()).hexdigest()


def why_not(lock: str, text: str | None, accelerator: str) -> str | None:
  """Returns why a lock cannot be used, or None if it can.

  Args:
    lock: its name.
    text: of it; None if there is no such file.
    accelerator: which one it is for.
  """
  here = f'{platform.system()} {platform.machine()}'
  if here != PLATFORM:
    return f'requirements/ is for {PLATFORM} and this is {here}'
  if text is None:
    return f'there is no {lock}'
  if mark(accelerator) not in text.splitlines():
    return (
      f'{lock} is not made from these requirements.txt and pyproject.toml '
      '(bash launch/lock.sh makes it again)'
    )
  return None


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('accelerator', choices=ACCELERATORS)
  parser.add_argument('--bounds', action='store_true')
  parser.add_argument('--extra', action='append', default=[])
  parser.add_argument('--mark', action='store_true')
  options = parser.parse_args()
  name, extras = options.accelerator, (*EXTRAS, *options.extra)
  if options.mark:
    print(mark(name))
    return
  if options.bounds:
    print(*bounds(name, extras), sep='\n')
    return
  path = ROOT / 'requirements' / f'{name}.lock'
  text = path.read_text() if path.exists() else None
  if problem := why_not(f'{path.parent.name}/{path.name}', text, name):
    print(f'# pip chooses the versions: {problem}.')
    print(*bounds(name), sep='\n')
  else:
    print(text, end='')


if __name__ == '__main__':
  main()
