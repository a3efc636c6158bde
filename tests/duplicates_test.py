"""Copies are found however they were made; different scenes are not copies."""

import time

import av
import cv2
import numpy as np
import pytest

from vdm.preparation import duplicates


def film(n, seed, size=(120, 160)):
  """Smooth random pictures that change, uint8 [n h w]."""
  rng = np.random.default_rng(seed)
  ends = rng.integers(0, 256, (n // 4 + 2, 9, 12)).astype(np.float32)
  frames = []
  for i in range(n):
    k, part = divmod(i / 4, 1)
    small = (1 - part) * ends[int(k)] + part * ends[int(k) + 1]
    frames.append(cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC))
  return np.clip(frames, 0, 255).astype(np.uint8)


def hashes(frames):
  return np.array([duplicates.perceptual_hash(f) for f in frames], np.uint64)


def recoded(frame):
  _, data = cv2.imencode('.jpg', frame, [cv2.IMWRITE_JPEG_QUALITY, 30])
  return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)


CHANGES = {
  'recoded': lambda x: [recoded(f) for f in x],
  'rescaled': lambda x: [cv2.resize(f, (72, 50)) for f in x],
  'squeezed': lambda x: [cv2.resize(f, (100, 120)) for f in x],
  'brighter': lambda x: np.clip(0.8 * x + 40, 0, 255).astype(np.uint8),
  'mirrored': lambda x: x[:, :, ::-1],
  'mirrored and recoded': lambda x: [recoded(f[:, ::-1].copy()) for f in x],
  'begins later': lambda x: x[11:],
  'a part': lambda x: x[13:30],
}


@pytest.mark.parametrize('change', CHANGES)
def test_copies_are_found(change):
  films = [film(40, seed) for seed in range(5)]
  sequences = [hashes(f) for f in films]
  sequences.insert(2, hashes(CHANGES[change](films[3])))
  ((i, j, apart),) = duplicates.find(sequences, threshold=0.05)
  assert (i, j) == (2, 4)
  assert apart <= 0.05


def test_the_hash_of_a_mirrored_frame_follows():
  for seed in range(5):
    frame = film(1, seed, (96, 96))[0]
    one = duplicates.mirrored(hashes([frame]))
    assert int(one[0]) == duplicates.perceptual_hash(frame[:, ::-1].copy())


def test_hash_is_the_sign_of_the_dct():
  frame = film(1, 3, (32, 32))[0]
  low = cv2.dct(frame.astype(np.float32))[:8, :8].ravel()
  bits = [low[i + 1] > 0 for i in range(duplicates.BITS)]
  value = duplicates.perceptual_hash(frame)
  assert [bool(value >> i & 1) for i in range(duplicates.BITS)] == bits
  assert value < 1 << duplicates.BITS


def test_another_moment_of_the_same_scene_is_no_copy():
  """A fixed camera: nine tenths of the picture never change."""
  scene = film(1, 5)[0]
  one, two = (scene[None].repeat(16, 0) for _ in range(2))
  for frames, seed in ((one, 6), (two, 7)):
    frames[:, 40:80, 60:100] = film(16, seed, (40, 40))
  copy = [recoded(f) for f in one]
  sequences = [hashes(x) for x in (one, two, copy)]
  still = np.bitwise_count(sequences[0] ^ sequences[1]).mean() / 63
  assert still < 0.25  # Alike, for the whole picture.
  assert [p[:2] for p in duplicates.find(sequences, threshold=0.25)] == [(0, 2)]


def test_most_of_the_shorter_one_must_lie_beside_the_other():
  rng = np.random.default_rng(0)
  a = rng.integers(0, 1 << 63, 20, np.uint64)
  assert duplicates.distance(a, a) == 0
  assert duplicates.distance(a, a[8:], 8) == 0
  assert duplicates.distance(a[8:], a, -8) == 0
  assert duplicates.distance(a, a[15:], 15) == 0  # All of the shorter one.
  b = np.concatenate([a[15:], rng.integers(0, 1 << 63, 15, np.uint64)])
  assert duplicates.distance(a, b, 15) == 1.0


def test_work_grows_with_the_number_of_shots_and_not_its_square():
  rng = np.random.default_rng(0)
  sequences = list(rng.integers(0, 1 << 63, (6_000, 8), np.uint64))
  copy = sequences[17] ^ np.uint64(1 << 40)
  sequences.append(copy)
  began = time.process_time()
  found = list(duplicates.find(sequences, threshold=0.05))
  assert [pair[:2] for pair in found] == [(17, 6_000)]
  # 18 million pairs; five seconds are far from enough for all of them.
  assert time.process_time() - began < 5


def test_the_real_pair(shared):
  def real(name):
    with av.open(str(shared / 'clips/natural' / name)) as container:
      frames = list(container.decode(video=0))[::15]
    return hashes([f.to_ndarray(format='gray') for f in frames])

  names = (
    'person_asl_book.mkv',
    'person_asl_walk.mkv',
    'skv_bikes_cuts.mp4',
    'traffic_bgs_video_small.avi',
    'traffic_bgs_video_msmpeg4v2.avi',
  )
  # Two recordings of one person in one place are not a pair.
  ((i, j, apart),) = duplicates.find(
    [real(name) for name in names], threshold=0.08
  )
  assert (i, j) == (3, 4) and apart < 0.06
