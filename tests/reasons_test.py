"""What a file is left out for, and what each reason means."""

from corpus_test import result
from corpus_test import shot

from vdm.config import schema
from vdm.preparation import reasons


def test_the_reason_of_a_file_is_that_of_most_of_its_frames():
  reason = reasons.of_file(
    result(
      'x',
      shot([], n=5, reason='blank'),
      shot([], n=30, reason='frozen'),
      shot([], n=9, reason='blank'),
    )
  )
  assert reason == ('frozen', 'of 44 frames 14 blank, 30 frozen')
  assert reasons.of_file(result('x', shot([]), shot([], reason='y'))) is None
  failed = result('x', reason='empty', message='no bytes')
  assert reasons.of_file(failed) == ('empty', 'no bytes')


def test_every_reason_has_a_meaning():
  data = schema.default().data
  codes = (
    'undecodable',
    'truncated',
    'empty',
    'no_video_stream',
    'too_small',
    'too_large',
    'timeout',
    'memory',
    'crashed',
    'failed',
    'too_short',
    'transition',
    'blank',
    'frozen',
    'low_frame_rate',
    'overlay',
    'low_motion',
    'high_motion',
    'duplicate',
    'watermarked_source',
  )
  for reason in codes:
    assert reasons.explain(reason, data) != reason.replace('_', ' ')
  assert reasons.explain('caption_short', data) == 'caption short'
