"""Which copy is kept, whose watermarks are too many."""

import numpy as np

from vdm.preparation import corpus
from vdm.preparation import reasons
from vdm.preparation import staging_area


def shot(hashes, *, start=0, n=20, reason='', overlay=None):
  return staging_area.Shot(
    start=start,
    stop=start + n,
    reason=reason,
    measures=dict(overlay=overlay),
    hashes=[int(h) for h in hashes],
    n=n,
  )


def result(name, *shots, height=240, width=320, **values):
  facts = dict(height=height, width=width)
  return staging_area.Result(name, facts=facts, shots=list(shots), **values)


def sequences(count, n=12):
  return np.random.default_rng(0).integers(0, 1 << 63, (count, n), np.uint64)


def test_the_better_copy_stays():
  a, b, c = sequences(3)
  results = [
    result('small.mp4', shot(a), height=120),
    result('other.mp4', shot(b)),
    result('large.mp4', shot(b, start=50, n=9), shot(a), height=720),
    result('same size.mp4', shot(c, n=19)),
    result('longer.mp4', shot(c, n=21)),
    result('first.mp4', shot(b, n=20)),
  ]
  pairs = corpus.drop_duplicates(results, 0.05)
  kept = {(r.name, s.start) for r in results for s in r.shots if s.reason == ''}
  # More pixels, else longer, else the first.
  assert kept == {('large.mp4', 0), ('large.mp4', 50), ('longer.mp4', 0)}
  small = results[0].shots[0]
  assert small.reason == 'duplicate'
  assert small.note.startswith('large.mp4, frames 0 to 20, 0.000 of the bits')
  assert {(0, 2), (1, 2), (3, 4)} <= {tuple(sorted(p)) for p in pairs}
  assert reasons.of_file(results[0]) == (
    'duplicate',
    f'of 20 frames 20 duplicate; {small.note}',
  )


def test_one_file_does_not_duplicate_itself_and_what_is_out_counts_nothing():
  a, b = sequences(2)
  results = [
    result('a.mp4', shot(a), shot(a, start=20)),
    result('b.mp4', shot(b)),
    result('c.mp4', shot(b, reason='frozen'), height=720),
    result('d.mp4', reason='empty', message='the file has no bytes'),
  ]
  assert corpus.drop_duplicates(results, 0.05) == []
  assert [s.reason for r in results for s in r.shots] == ['', '', '', 'frozen']


def test_a_copy_of_a_copy_that_is_out_stays_if_nothing_better_is_like_it():
  a = sequences(1)[0]
  # Each differs from its neighbour in 3 of 63 bits, the ends in 6.
  b, c = a ^ np.uint64(7), a ^ np.uint64(63)
  results = [result(n, shot(h)) for n, h in zip('abc', (a, b, c))]
  corpus.drop_duplicates(results, 0.05)
  assert [r.shots[0].reason for r in results] == ['', 'duplicate', '']


def test_publishers_that_mark_most_are_left_out():
  def mark(*overlays):
    return [shot([], overlay=o) for o in overlays]

  results = [
    result('a1', *mark(0.0, 0.05, None)),
    result('a2', *mark(0.04, 0.03)),
    result('b', *mark(0.05, 0.0, 0.0)),
    result('c', *mark(None, None)),
  ]
  groups = ['a', 'a', 'b', 'c']
  shares = corpus.overlay_shares(results, groups, 0.01)
  assert shares == {'a': (3, 4), 'b': (1, 3)}
  corpus.drop_watermarked(results, groups, limit=0.01, max_share=0.5)
  reasons = [{s.reason for s in r.shots} for r in results]
  assert reasons == [{'watermarked_source'}] * 2 + [{''}] * 2
  assert results[0].shots[0].note == '3 of 4 judged pieces of a'
  corpus.drop_watermarked(results, groups, limit=0.01, max_share=1.0)
  assert results[2].shots[0].reason == ''
