"""Reading clips: which clip is which."""

import pytest
from tiny_source import DEFAULTS
from tiny_source import LENGTHS
from tiny_source import Source
from tiny_source import starts_and_shots
from tiny_source import take

from vdm.data import clip_reader
from vdm.data import clip_spec
from vdm.data import windowing


@pytest.mark.parametrize('n', [0, 3])
def test_clips_are_named_by_the_record_they_begin_in(n):
  source = Source(LENGTHS)
  which = {k: v for k, v in DEFAULTS.items() if k != 'threads'}
  spec = clip_spec.ClipSpec(**which)
  windows = windowing.find_windows(source, spec)
  clips = clip_reader.TrainingClips(source, windows)
  names = [clips.name(n * spec.batch + row) for row in range(spec.batch)]
  batches, _ = take(source, n + 1)
  starts, shots = starts_and_shots(batches[n:])
  # Records of five frames are called by their shot and first frame.
  assert names == [
    {'id': f's{shot}f{start - start % 5}', 'start': start % 5}
    for start, shot in zip(starts.tolist(), shots.tolist())
  ]
