"""Nearest training clips against brute force, and planted copies."""

import numpy as np
import pytest

from vdm.metrics import neighbours


def toy(n, seed, frames=9):
  random = np.random.default_rng(seed)
  return random.integers(0, 256, (n, frames, 32, 32, 3), np.uint8)


def search(queries, training, size=7):
  nearest = neighbours.Nearest(neighbours.thumbnails(queries))
  for i in range(0, len(training), size):
    part = neighbours.thumbnails(training[i : i + size])
    nearest.add(part, i + np.arange(len(part)))
  return nearest


def test_the_search_in_pieces_is_that_over_all():
  queries, training = toy(5, 0), toy(30, 1)
  nearest = search(queries, training)
  a, b = (neighbours.thumbnails(x).astype(float) for x in (queries, training))
  away = np.sqrt(np.square(a[:, None] - b[None]).mean(-1))
  np.testing.assert_array_equal(nearest.index, away.argmin(1))
  np.testing.assert_allclose(nearest.distance, away.min(1), rtol=1e-6)
  assert nearest.seen == 30


def test_copies_are_found_and_counted():
  training, held_out = toy(40, 1), toy(50, 2)
  samples = toy(10, 3)
  samples[:3] = training[[4, 8, 39]]
  samples[3] = np.clip(training[11].astype(int) + 3, 0, 255)
  nearest, floor = search(samples, training), search(held_out, training)
  np.testing.assert_array_equal(nearest.index[:4], [4, 8, 39, 11])
  assert nearest.distance[:3].max() == 0
  assert nearest.distance[3] == pytest.approx(3, abs=0.2)
  values = neighbours.summarise(nearest, floor)
  assert values['copies'] == pytest.approx(0.4)
  assert values['least'] == 0 < values['held_out_least']
  assert values['clips'] == 40


def test_mirrored_copies_are_found_where_training_mirrors():
  training = toy(6, 1)
  sample = neighbours.mirror(training[2:3])
  nearest = neighbours.Nearest(neighbours.thumbnails(sample))
  numbers = np.arange(len(training))
  nearest.add(neighbours.thumbnails(training), numbers)
  assert nearest.distance[0] > 1
  mirrored = neighbours.thumbnails(neighbours.mirror(training))
  nearest.add(mirrored, numbers)
  assert nearest.distance[0] == 0 and nearest.index[0] == 2


def test_clips_of_few_frames():
  assert neighbours.thumbnails(toy(2, 0, frames=1)).shape == (2, 16 * 16 * 3)
