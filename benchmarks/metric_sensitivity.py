"""What each measure of the offline suite sees of ten ways to spoil clips.

  python benchmarks/metric_sensitivity.py --videos /path/to/videos \
      --record benchmarks/records/sensitivity.json

Windows of real videos against the same windows spoiled: for each measure of the
panel the probability that a spoiled clip has the greater value (0.5: blind; 0
and 1: it sees every one), and for each summary the energy distance in percent,
beside what half of the real videos are from the other half. Videos whose names
hold one of `--skip` are left out.
"""

import itertools
import json
import os
import pathlib
import platform
import sys
import time

from absl import app
from absl import flags
import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from vdm.config import flag
from vdm.metrics import corruptions
from vdm.metrics import distances
from vdm.metrics import motion
from vdm.metrics import suite
from vdm.preparation import clip_files
from vdm.preparation import sources

_VIDEOS = flags.DEFINE_string('videos', None, 'Folder of real videos.')
_SKIP = flags.DEFINE_list('skip', ['synthetic', 'broken'], 'Left out.')
_PER_VIDEO = flags.DEFINE_integer('per_video', 4, 'Windows of a video.')
_FRAMES = flags.DEFINE_integer('window', 16, 'Frames of a window.')
_RESOLUTION = flags.DEFINE_integer('resolution', 64, 'Of a window, px.')
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')


def read_windows(path, skip, per_video, frames, resolution):
  """Returns windows and the video of each, from files without `skip`."""
  files = [
    file
    for file in sorted(pathlib.Path(path).rglob('*'))
    if file.suffix.lower() in sources.VIDEO_SUFFIXES
    and not any(word in str(file.relative_to(path)) for word in skip)
  ]
  videos, names = [], []
  for file in files:
    try:
      clips, _ = clip_files.read_clips(
        file,
        frames=frames,
        resolution=resolution,
        num=per_video,
        per_video=per_video,
        sampling='middle',
      )
    except ValueError:
      continue  # Named in the log.
    videos.append(clips)
    names += [file.name] * len(clips)
  return np.concatenate(videos), np.array(names)


def measure(videos, names):
  """Measures the windows as they are and spoiled.

  Returns:
    ('auc', {measure: {corruption: number}}), ('energy', {name: {set: share}})
    and the 95th percentile of the energy between halves of the videos.
  """
  # Windows to cut and fade to, from other videos: half the list further.
  others = np.roll(videos, len(videos) // 2, axis=0)
  assert (names != np.roll(names, len(names) // 2)).all()
  real = suite.measure(videos)
  sets = {}
  for name, spoiled in corruptions.every(videos, others).items():
    began = time.perf_counter()
    sets[name] = suite.measure(spoiled)
    seconds = time.perf_counter() - began
    print(f'{name}: {1000 * seconds / len(videos):.0f} ms a clip', flush=True)
  area = {
    k: {
      name: distances.auc(real.panel[k], spoiled.panel[k])
      for name, spoiled in sets.items()
    }
    for k in motion.PANEL
  }
  # Half of the videos, real and spoiled, against the other half.
  half = np.isin(names, np.unique(names)[::2])
  first, second = (suite.select(real, rows) for rows in (half, ~half))
  spoiled = {name: suite.select(m, ~half) for name, m in sets.items()}
  energy = {
    name: {k: row['energy'] for k, row in suite.summarise(first, m).items()}
    for name, m in {'real': second, **spoiled}.items()
  }
  groups = np.concatenate([names[half], names[~half]])
  return {
    'windows': len(videos),
    'videos': len(np.unique(names)),
    'auc': area,
    'energy': {
      k: {n: row[k] for n, row in energy.items()} for k in suite.SUMMARY
    },
    'chance': suite.chance(first, second, groups),
  }


def tables(result) -> str:
  """Lays the result out as text."""
  lines = []
  for title, rows, factor in (
    ('Probability that a spoiled clip has the greater value', 'auc', 1),
    ('Energy distance from the other videos, %', 'energy', 100),
  ):
    names = list(next(iter(result[rows].values())))
    extra = ['by chance'] if rows == 'energy' else []
    cells = [[title, *names, *extra]]
    for key, row in result[rows].items():
      values = [row[n] * factor for n in names]
      if extra:
        values.append(result['chance'][key] * factor)
      cells.append([key, *(f'{v:.2f}' for v in values)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
      first, *rest = [
        c.ljust(w) if i == 0 else c.rjust(w)
        for i, (c, w) in enumerate(zip(row, widths, strict=True))
      ]
      lines.append('  '.join([first, *rest]))
    lines.append('')
  return '\n'.join(lines)


def main(argv):
  del argv
  if not _VIDEOS.value:
    flag.stop('Give a folder of real videos: --videos FOLDER.')
  videos, names = read_windows(
    _VIDEOS.value,
    _SKIP.value,
    _PER_VIDEO.value,
    _FRAMES.value,
    _RESOLUTION.value,
  )
  result = measure(videos, names)
  print(tables(result))
  blind = [
    name
    for name in next(iter(result['auc'].values()))
    if max(max(r[name], 1 - r[name]) for r in result['auc'].values()) < 0.9
  ]
  print('Seen by no measure with 0.9:', ', '.join(blind) or 'none.')
  if _RECORD.value:
    import cv2

    record = {
      'command': ' '.join(itertools.chain(['python'], sys.argv)),
      'python': platform.python_version(),
      'numpy': np.__version__,
      'opencv': cv2.__version__,
      'machine': f'{os.cpu_count()} cores, {platform.machine()}',
      'frames': _FRAMES.value,
      'resolution': _RESOLUTION.value,
      **result,
    }
    path = pathlib.Path(_RECORD.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + '\n')


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
