"""Clips that are the same every time."""

import numpy as np
from tiny_source import LENGTHS
from tiny_source import SIZE
from tiny_source import Source
from tiny_source import starts_and_shots

from vdm.data import clip_spec
from vdm.data import coding
from vdm.data import eval_clips

SPEC = clip_spec.ClipSpec(frames=4, stride=1, resolution=SIZE)


def test_clips_are_the_middles_then_other_windows():
  source = Source(LENGTHS)
  few = eval_clips.load_clips(source, SPEC, 4)
  many = eval_clips.load_clips(source, SPEC, 1000)
  np.testing.assert_array_equal(few['video'], many['video'][:4])
  assert few['label'].dtype == np.int32

  # 6 shots with 6, 17, 1, 4, 9 and 5 windows, every window once.
  starts, shots = starts_and_shots([many])
  assert len(starts) == 42 == len(set(zip(starts, shots)))
  assert sorted(shots[:6]) == [0, 1, 2, 3, 4, 6]
  middles = {0: 2, 1: 8, 2: 0, 3: 1, 4: 4, 6: 2}
  assert all(middles[k] == v for k, v in zip(shots[:6], starts[:6]))
  # 'row' and 'start' find the first frame again.
  for clip, row, start in zip(many['video'], many['row'], many['start']):
    (encoded,) = source.frames(row, start, start + 1)
    np.testing.assert_array_equal(coding.decode_frame(encoded), clip[0])
  other = eval_clips.load_clips(source, SPEC, 6, seed=1)
  assert not np.array_equal(other['label'], many['label'][:6])


def test_clips_leave_out_what_cannot_be_read():
  source = Source(LENGTHS, broken=(100,))
  clips = eval_clips.load_clips(source, SPEC, 6)
  assert len(clips['video']) == 6 and 100 not in clips['row']
