"""Reads a compiled program's text: what is launched, and what each one touches.

A device runs the instructions of the entry computation one after the other.
Each fusion, custom call or copy is a launch, which costs some microseconds
however small it is, and reads and writes memory. What a fusion reads of an
array that it only slices are the slices. Loops count once.
"""

import math
import re
from typing import NamedTuple

LAUNCHED = ('fusion', 'custom-call', 'copy')
COLLECTIVES = (
  'all-gather',
  'all-reduce',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
)
_INSTRUCTION = re.compile(
  r'\s+(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<type>.*?) (?P<op>[a-z][\w-]*)'
  r'\((?P<operands>[^)]*)\)(?P<rest>.*)'
)
_ARRAY = re.compile(r'\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]')


class Launch(NamedTuple):
  """One instruction that a device is told to run.

  Attributes:
    kind: of `LAUNCHED` or `COLLECTIVES`.
    name: as in the program, without numbers: what was fused.
    touched: bytes read and written.
    dtypes: of the results.
  """

  kind: str
  name: str
  touched: int
  dtypes: frozenset[str]


def launches(text: str) -> list[Launch]:
  """Returns the launches of a compiled program's entry computation.

  Args:
    text: `jax.stages.Compiled.as_text()`.
  """
  computations = _computations(text)
  entry = computations['']
  types = {name: found['type'] for name, found in entry.items()}
  result = []
  for name, found in entry.items():
    kind = found['op'].removesuffix('-start')
    if kind not in LAUNCHED + COLLECTIVES:
      continue
    called = re.search(r'calls=%?([\w.-]+)', found['rest'])
    sliced = _sliced(computations.get(called[1], {})) if called else {}
    operands = re.findall(r'%([\w.-]+)', found['operands'])
    read = sum(
      sliced[i] if i in sliced else _bytes(types.get(operand, ''))
      for i, operand in enumerate(operands)
    )
    written = found['type']
    result.append(
      Launch(
        kind,
        re.sub(r'[._-]?\d+', '', name),
        read + _bytes(written),
        frozenset(dtype for dtype, _ in _ARRAY.findall(written)),
      )
    )
  return result


def collectives(text: str) -> dict[str, int]:
  """Returns {kind: number of them} in a whole program."""
  return {
    kind: text.count(f' {kind}(') + text.count(f' {kind}-start(')
    for kind in COLLECTIVES
  }


def _computations(text):
  """Returns {name, '' for the entry: {instruction: its parts}}."""
  found, current = {}, None
  for line in text.splitlines():
    if line.endswith('{') and not line.startswith(' '):
      name = line.removeprefix('ENTRY ').split(' ')[0].lstrip('%')
      current = found['' if line.startswith('ENTRY ') else name] = {}
    elif current is not None and (match := _INSTRUCTION.match(line)):
      current[match['name']] = match.groupdict()
  return found


def _sliced(computation):
  """Returns {number: bytes of the slices} of parameters that are only sliced.

  Args:
    computation: {instruction: its parts}, of a fusion.
  """
  numbers = {
    name: int(found['operands'])
    for name, found in computation.items()
    if found['op'] == 'parameter'
  }
  sizes, whole = dict.fromkeys(numbers, 0), set()
  for found in computation.values():
    for operand in re.findall(r'%([\w.-]+)', found['operands']):
      if operand not in numbers:
        continue
      if found['op'] == 'slice':
        sizes[operand] += _bytes(found['type'])
      else:
        whole.add(operand)
  return {numbers[name]: sizes[name] for name in numbers.keys() - whole}


def _bytes(types):
  """Returns the bytes of the arrays in a type's text."""
  total = 0
  for dtype, sizes in _ARRAY.findall(types):
    bits = 8 if dtype == 'pred' else int(re.search(r'\d+', dtype)[0])
    total += math.prod(int(n) for n in sizes.split(',') if n) * bits // 8
  return total
