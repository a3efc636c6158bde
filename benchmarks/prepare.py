"""Times the preparation of videos, and reading the result back.

  python benchmarks/prepare.py --videos ../shared/clips/ucf101 \
      --record benchmarks/records/prepare_ucf101.json

Per size: source frames a second of the whole tool (decode, screen, select,
crop, resize, encode, stage) as a share of PyAV decoding alone; then windows a
second of Grain over the dataset beside PyAV seeking in the source files to the
same windows. All in processor seconds of one process, the ways interleaved, so
that a busy machine says less than it would in wall time.
"""

import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time

from absl import app
from absl import flags
import av
import cv2
import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from vdm.config import schema
from vdm.data import builders
from vdm.data import clip_spec
from vdm.data import pipeline
from vdm.preparation import datasets
from vdm.preparation import geometry
from vdm.preparation import prepare_file
from vdm.preparation import sources
from vdm.preparation import staging_area
from vdm.preparation import video_dataset

_VIDEOS = flags.DEFINE_string('videos', None, 'Folder.', required=True)
_MATCH = flags.DEFINE_string('match', '', 'Only files whose path has this.')
_SIZES = flags.DEFINE_list('sizes', ['64', '128'], 'Px that are stored.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Of each measurement; the median.')
_FRAMES = flags.DEFINE_integer('frames', 16, 'Of a window.')
_WINDOWS = flags.DEFINE_integer('windows', 256, 'Read in a round.')
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')


@contextlib.contextmanager
def timed(seconds):
  """Appends the processor time of what happens within."""
  began = time.process_time()
  yield
  seconds.append(time.process_time() - began)


def make_data(folder, size, root):
  data = schema.default().data
  data.update(name='video_folder', source=folder, root=root, resolution=size)
  data.update(frame_rate=25.0, min_frames=_FRAMES.value)
  data.screening.rules = tuple(
    rule for rule in schema.SCREENING if rule != 'duplicate'
  )
  data.limits.workers = 1
  return data


def decode(path):
  """Returns how many frames PyAV gives, in one thread."""
  with av.open(path) as container:
    stream = container.streams.video[0]
    stream.thread_type = 'NONE'
    return sum(1 for _ in container.decode(stream))


def measure_preparing(files, data, root):
  """Frames a second of decoding alone and of the tool."""
  own = video_dataset.file_settings(data)
  seconds = {'decode': [], 'prepare': []}
  for round_number in range(_ROUNDS.value):
    staging = staging_area.Staging(f'{root}/{data.resolution}_{round_number}')
    frames = 0
    with timed(seconds['decode']):
      for file in files:
        with file.open() as path:
          frames += decode(path)
    with timed(seconds['prepare']):
      for file in files:
        task = prepare_file.Task(file, own, data.limits.pixels, staging)
        prepare_file.prepare(task, lambda: None)
  alone, tool = (frames / statistics.median(s) for s in seconds.values())
  return {
    'source_frames': frames,
    'decode_frames_per_second': alone,
    'prepare_frames_per_second': tool,
    'share_of_decoding': tool / alone,
    'rounds': seconds,
  }


def seek_window(path, start, frames, size):
  """Reads frames from `start` on, after seeking to a key frame before it."""
  with av.open(path) as container:
    stream = container.streams.video[0]
    stream.thread_type = 'NONE'
    rate = float(stream.average_rate)
    container.seek(int(start / rate / stream.time_base), stream=stream)
    images = []
    for frame in container.decode(stream):
      if frame.time is not None and frame.time < (start - 0.5) / rate:
        continue
      images.append(geometry.fit(frame, (size, size)))
      if len(images) == frames:
        break
  return images


def measure_reading(files, data):
  """Windows a second and core through Grain, and by seeking."""
  directory = datasets.build(data)
  source = builders.open_source(directory, 'train')
  batch = 16
  rng = np.random.default_rng(0)
  lengths = []
  for file in files:
    with file.open() as path:
      lengths.append(decode(path))
  chosen = rng.integers(len(files), size=_WINDOWS.value)
  seconds = {'grain': [], 'seek': []}
  for round_number in range(_ROUNDS.value):
    with (
      timed(seconds['grain']),
      pipeline.make_batches(
        source,
        clip_spec.ClipSpec(
          frames=_FRAMES.value,
          stride=1,
          resolution=data.resolution,
          batch=batch,
          seed=round_number,
          stage='benchmark',
        ),
        stop=_WINDOWS.value // batch,
        threads=0,
      ) as batches,
    ):
      number = sum(len(b['video']) for b in batches)
    assert number == _WINDOWS.value
    read = 0
    with timed(seconds['seek']):
      for k in chosen:
        last = max(1, lengths[k] - _FRAMES.value)
        with files[k].open() as path:
          start = int(rng.integers(last))
          window = seek_window(path, start, _FRAMES.value, data.resolution)
          read += len(window) == _FRAMES.value
  grain, seek = (
    _WINDOWS.value / statistics.median(s) for s in seconds.values()
  )
  return {
    'windows_per_second_and_core': grain,
    'by_seeking': seek,
    'ratio': grain / seek,
    'whole_windows_by_seeking': read / _WINDOWS.value,
    'rounds': seconds,
  }


def main(argv):
  del argv
  cv2.setNumThreads(1)
  files = [
    file
    for file in sources.list_folder(_VIDEOS.value)
    if file.name.lower().endswith(('.avi', '.mp4', '.webm', '.mkv'))
    and _MATCH.value in file.name
  ]
  record = {
    'command': ' '.join(['python', *sys.argv]),
    'cores': os.cpu_count(),
    'processor': platform.processor() or platform.machine(),
    'load_before': os.getloadavg(),
    'python': platform.python_version(),
    'versions': {'av': av.__version__, 'cv2': cv2.__version__},
    'seconds': 'of the processor, one process',
    'files': [file.name for file in files],
    'rows': [],
  }
  with tempfile.TemporaryDirectory() as root:
    # Links, so that the dataset is of the chosen files alone.
    folder = os.path.join(root, 'videos')
    os.mkdir(folder)
    for number, file in enumerate(files):
      with file.open() as path:
        suffix = os.path.splitext(path)[1]
        os.symlink(
          os.path.abspath(path), os.path.join(folder, f'{number}{suffix}')
        )
    for size in map(int, _SIZES.value):
      data = make_data(folder, size, root)
      row = {
        'resolution': size,
        'preparing': measure_preparing(files, data, root),
        'reading': measure_reading(files, data),
      }
      record['rows'].append(row)
      print(json.dumps(row))
  record['load_after'] = os.getloadavg()
  if _RECORD.value:
    os.makedirs(os.path.dirname(_RECORD.value) or '.', exist_ok=True)
    with open(_RECORD.value, 'w') as file:
      file.write(json.dumps(record, indent=2) + '\n')


if __name__ == '__main__':
  app.run(main)
