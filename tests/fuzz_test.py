"""Damaged variants of real files: no crash, no hang, a reason for each.

The default test has a few of small files; all 300 are worked through by

  python -m pytest -m slow tests/fuzz_test.py
"""

import collections
import pathlib
import time

import numpy as np
import pytest

from vdm.config import schema
from vdm.preparation import reasons
from vdm.preparation import sources
from vdm.preparation import staging_area
from vdm.preparation import video_dataset
from vdm.preparation import workers

SMALL = (
  'natural/tc_h265_10bit_synthetic.mp4',
  'natural/decord_rot0.mov',
  'natural/tc_av1_synthetic.mkv',
  'ucf101/UCF-101/Punch/v_Punch_g03_c01.avi',
)
ALL = (
  *SMALL,
  'broken/decord_corrupted.mp4',
  'natural/psd_fades_synthetic.mp4',
  'natural/person_asl_walk.mkv',
  'natural/skv_bikes_cuts.mp4',
  'natural/skv_carphone_pristine.mp4',
  'natural/tc_nasa_13013.mp4',
  'natural/tc_var_fps_synthetic.mp4',
  'natural/traffic_bgs_video_small.avi',
  'raw_mpeg4/v_CliffDiving_g03_c01.mp4',
  'ucf101/UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi',
  'ucf101/UCF-101/Biking/v_Biking_g05_c02.avi',
)
# What precedes sizes in headers: AVI, QuickTime, Matroska, MPEG-4.
MARKERS = (
  b'avih',
  b'strf',
  b'strh',
  b'idx1',
  b'tkhd',
  b'avc1',
  b'hev1',
  b'mp4v',
  b'stsz',
  b'stts',
  b'stco',
  b'mdhd',
  b'elst',
  b'\xb0\x82',
  b'\xba\x82',
  b'\xe0',
  b'\x00\x00\x01\x20',
  b'\x00\x00\x01\xb0',
)


def truncated(data, rng):
  return data[: int(rng.integers(1, len(data)))]


def flipped(data, rng):
  data = bytearray(data)
  for place in rng.integers(0, len(data), 10 ** int(rng.integers(0, 5))):
    data[place] ^= 1 << int(rng.integers(8))
  return bytes(data)


def zeroed(data, rng):
  size = min(int(2 ** rng.uniform(6, 17)), len(data))
  start = int(rng.integers(0, len(data) - size + 1))
  return data[:start] + bytes(size) + data[start + size :]


def absurd(data, rng):
  """Large numbers where a header has sizes, counts or lengths."""
  data = bytearray(data)
  there = [m for m in MARKERS if m in data[:65536] + data[-65536:]]
  for marker in rng.choice(np.array(there, object), 2):
    place = data.find(marker) + len(marker) * int(rng.integers(2)) - 4
    place = max(0, place + 4 * int(rng.integers(0, 14)))
    data[place : place + 4] = (b'\x7f' if rng.random() < 0.5 else b'\xff') * 4
  return bytes(data)


def misnamed(data, rng):
  """Another suffix is added by `make_variants`; sometimes no video at all."""
  return data if rng.random() < 0.5 else rng.bytes(int(rng.integers(1, 50_000)))


DAMAGES = (truncated, flipped, zeroed, absurd, misnamed)
SUFFIXES = ('.avi', '.mp4', '.mkv', '.webm', '.ts', '.flv', '.mpg', '.3gp')


def make_variants(folder, shared, names, per_damage):
  for number, name in enumerate(names):
    data = (shared / 'clips' / name).read_bytes()
    own = pathlib.Path(name).suffix
    for damage in DAMAGES:
      for k in range(per_damage):
        rng = np.random.default_rng([number, DAMAGES.index(damage), k])
        suffix = rng.choice(SUFFIXES) if damage is misnamed else own
        path = folder / f'{number:02d}_{damage.__name__}_{k}{suffix}'
        path.write_bytes(damage(data, rng))


def work_through(folder, root):
  """Prepares a folder in limited processes; returns results and memory."""
  data = schema.default().data
  data.update(name='video_folder', resolution=64, min_frames=16)
  data.update(root=str(root), source=str(folder))
  data.screening.rules = schema.SCREENING
  data.limits.update(seconds=120.0, stall_seconds=60.0, memory_mb=1024)
  staging = staging_area.Staging(str(root / 'staging'))
  build = video_dataset.Build(data, staging)
  results = build.prepare(sources.list_folder(str(folder)))
  skipped = {skip.source: skip for skip in reasons.skipped(results)}
  return results, skipped


def check(folder, root, expected):
  began = time.monotonic()
  results, skipped = work_through(folder, root)
  assert len(results) == expected
  kinds = collections.defaultdict(collections.Counter)
  for result in results:
    damage = result.name.split('_')[1]
    skip = skipped.get(result.name)
    kinds[damage][skip.reason if skip else 'whole'] += 1
    if skip:
      assert skip.reason and skip.message
      # The decoder never took the process with it, nor did it hang or go
      # beyond its memory.
      assert skip.reason not in workers.LIMIT_REASONS, skip
      assert skip.reason != 'failed', skip
    else:
      # Damage that nobody can notice leaves every frame.
      assert result.facts['frames'] >= 16
      ends = [0, *(shot.stop for shot in result.shots)]
      assert [shot.start for shot in result.shots] == ends[:-1]
  for damage, counts in kinds.items():
    print(f'{damage}: {dict(counts)}')
  print(f'{time.monotonic() - began:.0f} s')
  return kinds


def test_a_few_damaged_files(shared, tmp_path):
  folder = tmp_path / 'videos'
  folder.mkdir()
  make_variants(folder, shared, SMALL, per_damage=2)
  kinds = check(folder, tmp_path, 40)
  assert kinds['truncated']['whole'] == 0


@pytest.mark.slow
def test_three_hundred_damaged_files(shared, tmp_path):
  folder = tmp_path / 'videos'
  folder.mkdir()
  make_variants(folder, shared, ALL, per_damage=4)
  kinds = check(folder, tmp_path, 300)
  assert sum(kinds['truncated'].values()) == 60
