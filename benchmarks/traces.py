"""Reads traces: which kernels ran, of which kind, and what asked for them."""

import collections
import glob
import re

PACKAGE = '/vdm/'
# The first that a kernel's name has.
KINDS = {
  'convolutions': r'wgrad|dgrad|fprop|conv(?!ert)',
  'matrix products': r'gemm|nvjet|cutlass|dot',
  'reductions': r'reduce',
  'copies, transposes, concatenations': (
    r'transpose|copy|concatenate|mem(cpy|set)|slice|pad'
  ),
  'element by element': r'',
}


def sources(program):
  """{kernel's name: function of this package} of a compiled program's text.

  Args:
    program: the text, with its table of stack frames.
  """
  entries, section = collections.defaultdict(dict), None
  functions = {}
  for line in program.split('\n'):
    if re.fullmatch(r'FileNames|FunctionNames|FileLocations|StackFrames', line):
      section = line
    elif section and (match := re.match(r'(\d+) (.*)', line)):
      entries[section][match[1]] = match[2].strip('"')
    elif match := re.match(r'\s+(?:ROOT )?%(\S+) = ', line):
      frame = re.search(r'stack_frame_id=(\d+)', line)
      name = frame and _function(entries, frame[1])
      functions[spelled(match[1])] = name or 'nothing of this package'
  return functions


def _function(entries, frame):
  """The innermost function of this package on a stack."""
  while content := entries['StackFrames'].get(frame):
    numbers = dict(re.findall(r'(\w+)=(\d+)', content))
    place = entries['FileLocations'][numbers['file_location_id']]
    place = dict(re.findall(r'(\w+)=(\d+)', place))
    path = entries['FileNames'][place['file_name_id']]
    if PACKAGE in path and 'site-packages' not in path:
      function = entries['FunctionNames'][place['function_name_id']]
      function = function.partition('.<locals>')[0]
      return f'{path.rpartition(PACKAGE)[2]} {function}'
    if numbers.get('parent_frame_id', frame) == frame:
      return None
    frame = numbers['parent_frame_id']


def spelled(name):
  """A name as a GPU's kernels have it."""
  return name.replace('.', '_').replace('-', '_')


def kernels(folder):
  """[(name, seconds)] of all kernels in a trace of a CPU or a GPU."""
  import jax

  (path,) = glob.glob(f'{folder}/**/*.xplane.pb', recursive=True)
  found = []
  for plane in jax.profiler.ProfileData.from_file(path).planes:
    for line in plane.lines:
      for event in line.events:
        on_gpu = plane.name.startswith('/device:GPU')
        if on_gpu or 'hlo_op' in dict(event.stats):
          found.append((event.name, event.duration_ns / 1e9))
  return found


def grouped(found, group, steps):
  """[{'name', 'milliseconds', 'kernels'}] a step, the longest first.

  Args:
    found: [(name, seconds)] of kernels.
    group: name of a kernel -> name of its group.
    steps: that were traced.
  """
  seconds, numbers = collections.Counter(), collections.Counter()
  for name, duration in found:
    seconds[group(name)] += duration
    numbers[group(name)] += 1
  return [
    {
      'name': name,
      'milliseconds': 1000 * value / steps,
      'kernels': numbers[name] / steps,
    }
    for name, value in seconds.most_common()
  ]


def kind(name):
  """The kind of a kernel, by its name."""
  return next(k for k, pattern in KINDS.items() if re.search(pattern, name))
