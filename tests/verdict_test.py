"""The verdict follows from a card's numbers."""

import pytest

from vdm.evaluation import verdict

ROWS = ('motion', 'texture', 'panel')
SPOILED = {
  'real': (-0.001, 0.0, 0.001),
  'autoencoder': (0.1, 0.3, 0.2),
  'shuffled': (0.5, 0.0, 0.4),
  'frozen': (0.8, 0.1, 0.7),
}


def make(samples, nearest, copies=0.0, least=20.0, clips=256):
  """A card: energies from real clips, those from another set, and copies."""
  energy = {
    row: {
      'samples': {'energy': samples[i]},
      'chance': 0.002,
      **{name: {'energy': values[i]} for name, values in SPOILED.items()},
    }
    for i, row in enumerate(ROWS)
  }
  far = dict.fromkeys(ROWS, 0.6)
  return {
    'counts': dict.fromkeys(('reference', 'samples', *SPOILED), clips),
    'energy': energy,
    'from_samples': {
      **dict.fromkeys(SPOILED, far),
      nearest: dict.fromkeys(ROWS, -0.001),
    },
    'memorisation': {
      'copies': copies,
      'least': least,
      'held_out_median': 37.0,
    },
  }


@pytest.mark.parametrize(
  'arguments, closest, worst, copied',
  [
    (
      ((-0.001, 0.001, 0.002), 'real'),
      'other real clips (0.0 % away)',
      'No measure tells them from real clips.',
      'Nothing looks copied: 0 of 256 samples',
    ),
    (
      ((0.1, 0.301, 0.2), 'autoencoder', 4 / 256),
      'reconstructions of the autoencoder',
      'real clips: texture, 30.1 % away; no measure is worse than the',
      'Nothing looks copied: 4 of 256 samples',
    ),
    (
      ((0.8, 0.85, 0.7), 'frozen'),
      'frozen clips',
      'real clips: texture, 85.0 % away; against the autoencoder: motion, '
      '80.0 % where its reconstructions are 10.0 % away',
      'Nothing looks copied',
    ),
    (
      ((0.5, 0.0, 0.4), 'shuffled'),
      'real clips with shuffled frames',
      'real clips: motion, 50.0 % away; against the autoencoder: motion',
      'Nothing looks copied',
    ),
    (
      ((0.0, 0.0, 0.0), 'real', 0.9, 2.0),
      'other real clips',
      'No measure tells them',
      'Training clips may be copied: 230 of 256 samples are nearer to a '
      'training clip than held-out clips are (2.6 by chance), the nearest at '
      '2.0 grey levels (held-out median 37.0).',
    ),
    (
      ((0.9, 0.9, 0.9), 'autoencoder', 1.0, 24.0),
      'reconstructions of the autoencoder',
      'Worst against real clips: motion, 90.0 % away',
      'Nothing looks copied: 256 of 256 samples',
    ),
  ],
  ids=['good', 'decoded', 'frozen', 'shuffled', 'copies', 'blurred'],
)
def test_verdict_names_the_closest_the_worst_and_copies(
  arguments, closest, worst, copied
):
  lines = verdict.text(make(*arguments)).splitlines()
  assert len(lines) == 3
  for line, words in zip(lines, (closest, worst, copied), strict=True):
    assert words in line
  assert lines[0].startswith(f'The samples are closest to {closest}')


def test_of_few_clips_there_is_no_verdict():
  card = make((0.8, 0.9, 0.7), 'frozen', 1.0, 0.0, clips=15)
  assert verdict.text(card).startswith('Too few clips for a verdict')
  card = make((0.8, 0.9, 0.7), 'frozen', clips=16)
  assert 'frozen clips' in verdict.text(card)
  card['counts']['floor'] = [16, 15]
  assert verdict.text(card).startswith('Too few clips for a verdict')


def test_samples_nearer_than_other_real_clips_are_not_told_from_them():
  card = make((0.05, 0.0, 0.0), 'real')
  assert 'Worst against real clips: motion' in verdict.text(card)
  card['energy']['motion']['real']['energy'] = 0.06
  assert 'No measure tells them' in verdict.text(card)


def test_chance_copies_grow_with_fewer_held_out_clips():
  """One of 17 clips is the nearest by chance: 2 of 16 say nothing."""
  found = verdict.text(make((0.0, 0.0, 0.0), 'real', 2 / 16, 2.0, clips=16))
  assert 'Nothing looks copied: 2 of 16' in found and '(0.9 by' in found


def test_folders_have_neither_autoencoder_nor_training_clips():
  card = make((0.8, 0.85, 0.7), 'frozen')
  del card['memorisation']
  for row in card['energy'].values():
    del row['autoencoder']
  lines = verdict.text(card).splitlines()
  assert lines[1] == 'Worst against real clips: texture, 85.0 % away.'
  assert lines[2] == 'Whether training clips are copied was not measured.'
