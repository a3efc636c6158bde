"""The text of a card: verdict first, unique titles, no numbers of chance."""

import copy
import re

import numpy as np
import pytest

from vdm.data.synthetic import scenes
from vdm.evaluation import card_text
from vdm.evaluation import clip_set
from vdm.evaluation import metrics_card
from vdm.evaluation import verdict
from vdm.metrics import corruptions
from vdm.metrics import laws

CLIPS = verdict.LEAST_CLIPS


def describe(videos, labels):
  clips = clip_set.describe(
    videos,
    np.arange(len(videos)),
    labels,
    world=laws.World(),
    straight=True,
  )
  means = videos.mean((1, 2, 3)) / 255
  return clips._replace(features=means, logits=means)


def made(samples):
  """A card of clips of scenes, with everything that a card can hold."""
  rendered = [
    scenes.render(i, seed=0, resolution=32, frames=8) for i in range(2 * CLIPS)
  ]
  videos = np.stack([clip['frames'] for clip in rendered])
  labels = np.array([clip['label'] for clip in rendered])
  first, second = slice(CLIPS), slice(CLIPS, None)
  sets = {
    'samples': samples(videos[second]),
    'real': videos[second],
    'autoencoder': videos[second] // 2,
    **{
      name: corrupt(videos[second])
      for name, corrupt in metrics_card.CORRUPTIONS.items()
    },
  }
  card = metrics_card.make(
    describe(videos[first], labels[first]),
    {name: describe(clips, labels[second]) for name, clips in sets.items()},
    features='fvd',
  )
  return card | {
    'reconstruction': {'psnr': 30.0, 'flicker_out': 0.1},
    'memorisation': {
      'clips': 2048,
      'median': 20.0,
      'least': 9.0,
      'held_out_median': 21.0,
      'held_out_least': 10.0,
      'copies': 0.0,
    },
    'protocol': {'reference': {'split': 'validation'}},
  }


@pytest.fixture(scope='module')
def card():
  return made(corruptions.freeze)


def blocks(text):
  """[(columns, {title: cells})] of the tables of a text."""
  found = []
  for block in text.split('\n\n'):
    lines = block.splitlines()
    headers = [i for i, line in enumerate(lines) if line.startswith('   ')]
    if headers:
      start = headers[0]
      columns = re.split(r' {2,}', lines[start].strip())
      rows = [re.split(r' {2,}', line) for line in lines[start + 1 :]]
      assert all(len(row) == 1 + len(columns) for row in rows), block
      found.append((columns, rows))
  return found


def cells(text, title, column):
  for columns, rows in blocks(text):
    for name, *values in rows:
      if name == title and column in columns:
        return values[columns.index(column)]
  raise KeyError(title)


def test_titles_are_unique_over_all_tables_and_columns_in_each(card):
  tables = blocks(card_text.text(card))
  assert len(tables) == 5
  titles = [row[0] for _, rows in tables for row in rows]
  assert len(titles) == len(set(titles)) > 40
  for columns, _ in tables:
    assert len(columns) == len(set(columns))


def test_the_verdict_comes_first_and_no_json(card):
  text = card_text.text(card)
  assert text.startswith('The samples are closest to frozen clips (0.0 % away)')
  assert '{' not in text and 'validation' not in text


def test_shuffled_samples_are_closest_to_shuffled_clips():
  text = card_text.text(made(corruptions.shuffle_frames))
  assert text.startswith('The samples are closest to real clips with shuffled')


def test_what_chance_gives_is_no_number(card):
  card = copy.deepcopy(card)
  row = card['energy']['motion']
  row['real']['energy'], row['chance'] = -0.05, 0.02
  row['samples'] = {'energy': 0.02, 'low': -0.01, 'high': 0.03}
  row['shuffled']['energy'] = 0.021
  for kernel in card['fvd'].values():
    kernel['kernel'] = -3.0
  text = card_text.text(card)
  assert cells(text, 'motion', 'samples') == 'as real'
  assert cells(text, 'motion', '95 %') == '-'
  assert cells(text, 'motion', 'real') == 'as real'
  assert cells(text, 'motion', 'shuffled') == '2.10'
  assert cells(text, 'samples', 'kernel') == 'as real'
  assert ' -0' not in text and ' -3' not in text
  row['samples'] = {'energy': 0.03, 'low': -0.01, 'high': 0.05}
  assert cells(card_text.text(card), 'motion', '95 %') == '0.00 to 5.00'
  assert text.count('as real: at most what chance gives') == 1


def test_few_clips_give_no_distance_and_the_rule_is_said_once(card):
  before = copy.deepcopy(card)
  assert 'too few' not in card_text.text(card).replace('too few: one', '')
  card = copy.deepcopy(card)
  card['counts'] = dict.fromkeys(card['counts'], CLIPS - 1)
  text = card_text.text(card)
  assert text.startswith('Too few clips for a verdict: it takes 16')
  for title, column in (
    ('motion', 'samples'),
    ('motion', 'real'),
    ('motion', 'chance'),
    ('motion', 'frozen'),
    ('warp error, grey levels', 'samples'),
    ('warp error, grey levels', 'AUC of real, %'),
    ('samples', 'Frechet'),
    ('real', 'kernel'),
    ('speed distance from real, px per frame', 'real'),
    ('spread of hues / real', 'samples'),
  ):
    assert cells(text, title, column) == 'too few', title
  assert 'Inception Score: samples too few' in text
  # Medians and means of clips are of any number.
  for title in ('hue drift, degrees', 'never two objects, %'):
    assert float(cells(text, title, 'samples')) >= 0
  assert text.count('too few: ') == 1
  # The numbers themselves stay.
  card['counts'] = before['counts']
  assert card == before
