"""Captions of synthetic scenes say what is true, and can be read again."""

import collections
import itertools

import numpy as np
import pytest

from vdm.common import shapes
from vdm.common import vocabulary
from vdm.config import schema
from vdm.data.builders import synthetic_scenes
from vdm.data.synthetic import captions
from vdm.data.synthetic import scenes

ALL = list(
  itertools.product(
    range(len(captions.COLOURS)),
    range(len(shapes.NAMES)),
    range(len(captions.DIRECTIONS)),
  )
)


def test_a_tenth_is_held_out_and_every_value_is_seen():
  held_out = captions.held_out()
  assert len(held_out) == 14 and held_out < set(ALL)
  assert (0, 0, 5) not in held_out  # The prompt of README and flags.
  for axis in range(3):
    seen = collections.Counter(
      x[axis] for x in ALL if x not in captions.held_out()
    )
    total = collections.Counter(x[axis] for x in ALL)
    assert all(2 * seen[value] >= total[value] for value in total)
    assert len({x[axis] for x in held_out}) > 1


def test_every_wording_is_read_as_it_was_meant():
  random = np.random.default_rng(0)
  wordings = set()
  for triple, size in itertools.product(ALL, range(3)):
    wanted = captions.Attributes(*triple, size)
    caption = captions.render([wanted], 'textured', random)
    wordings.add(caption)
    found = captions.parse(caption)
    assert found.triple == triple
    assert found.size in (size, None)
    assert (found.size is None) == (
      not set(captions.SIZES) & set(vocabulary.split(caption))
    )
    assert captions.parse(captions.prompt(wanted)) == wanted
  assert len(wordings) > 400
  assert any(x.endswith('grey ground') for x in wordings)


def test_captions_of_several_objects_name_all():
  objects = [
    captions.Attributes(0, 0, 0, 1),
    captions.Attributes(4, 2, None, 0),
  ]
  caption = captions.render(objects, 'plain', np.random.default_rng(0))
  words = set(vocabulary.split(caption))
  assert {'red', 'blue', 'triangle'} <= words and words & {'disc', 'circle'}
  assert captions.parse(caption) is None
  assert captions.parse('a dog') is None


def test_attributes_are_those_of_the_scene():
  for index in range(24):
    scene = scenes.render(index, seed=0, resolution=32, frames=4, captions=True)
    (found,) = captions.attributes(scene['truth'], 32)
    assert found.direction == scene['label']
    assert found.shape == scene['truth']['shape'][0]
    # The colour is near to the one that is named, and to no other.
    turns = captions.hue(scene['truth']['colour'][0, 0])
    off = (turns * 6 - found.colour + 3) % 6 - 3
    assert abs(off) <= 0.16
  falling = scenes.render(
    0, seed=0, resolution=32, frames=4, motion='gravity', captions=True
  )
  (found,) = captions.attributes(falling['truth'], 32)
  assert found.direction is None


@pytest.fixture(scope='module')
def data_set():
  data = schema.default().data
  data.name, data.resolution = 'synthetic_scenes', 16
  data.scenes.update(train=160, validation=80, frames=3, captions=True)
  return data, list(synthetic_scenes.make_plan(data).shots())


def test_training_scenes_show_nothing_that_is_held_out(data_set):
  _, shots = data_set
  told = {'train': [], 'validation': []}
  for shot in shots:
    told[shot.splits[0]].append(captions.parse(shot.caption))
    # And the caption is true.
    found = captions.attributes(
      {k: np.asarray(x) for k, x in shot.truth.items()}, 16
    )[0]
    assert told[shot.splits[0]][-1].triple == found.triple
  assert len(told['train']) == 160
  assert not any(captions.is_held_out([x]) for x in told['train'])
  assert any(captions.is_held_out([x]) for x in told['validation'])


def test_sizes_in_words_go_by_the_shorter_side():
  """By which scenes are scaled: tall frames have the words of square ones."""
  for height, width in ((16, 16), (24, 16), (16, 24)):
    data = schema.default().data
    data.update(name='synthetic_scenes', resolution=height, width=width)
    data.scenes.update(train=40, validation=8, frames=2, captions=True)
    shots = list(synthetic_scenes.make_plan(data).shots())
    told = [captions.parse(x.caption).size for x in shots]
    found = [
      captions.attributes({k: np.asarray(x) for k, x in s.truth.items()}, 16)[0]
      for s in shots
    ]
    pairs = [(a, b.size) for a, b in zip(told, found) if a is not None]
    assert len(pairs) > 10 and all(a == b for a, b in pairs)


def test_scenes_without_captions_are_what_they_were(data_set):
  data, _ = data_set
  named = synthetic_scenes.config_name(data)
  data = data.copy_and_resolve_references()
  data.scenes.captions = False
  assert synthetic_scenes.config_name(data) != named
  settings = synthetic_scenes.make_plan(data).settings
  assert 'captions' not in settings['scenes']
  shot = next(iter(synthetic_scenes.make_plan(data).shots()))
  assert shot.caption == ''


def test_prompts_are_of_seen_and_held_out_triples_in_turn():
  prompts = captions.prompts(20)
  assert prompts == captions.prompts(30)[:20]
  assert len(set(prompts)) == 20
  held_out = [captions.is_held_out([captions.parse(x)]) for x in prompts]
  assert held_out == [False, True] * 10
