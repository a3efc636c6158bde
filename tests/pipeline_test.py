"""Batches: their bytes, whoever makes them, and what damage does to them."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

from absl import flags
import numpy as np
import pytest
from tiny_source import LENGTHS
from tiny_source import make_batches
from tiny_source import SIZE
from tiny_source import Source
from tiny_source import starts_and_shots
from tiny_source import take

from vdm.common import vocabulary
from vdm.data import clip_reader
from vdm.data import clip_spec
from vdm.data import coding
from vdm.data import eval_clips
from vdm.data import pipeline


def assert_same(one, two):
  assert len(one) == len(two)
  for a, b in zip(one, two):
    for key in ('video', 'label'):
      assert a[key].dtype == b[key].dtype
      np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize('frames, stride', [(4, 1), (3, 4), (1, 1)])
def test_a_clip_is_consecutive_frames_of_one_shot(frames, stride):
  (batch,), _ = take(Source(LENGTHS), 1, frames=frames, stride=stride)
  assert batch['video'].shape == (12, frames, SIZE, SIZE, 3)
  assert batch['video'].dtype == np.uint8 and batch['label'].dtype == np.int32
  for clip, label in zip(batch['video'], batch['label']):
    first = int(clip[0, 0, 0, 1])
    wanted = np.empty_like(clip)
    wanted[..., 0] = label
    wanted[..., 1] = (first + stride * np.arange(frames))[:, None, None]
    wanted[..., 2] = np.arange(SIZE)
    np.testing.assert_array_equal(clip, wanted)
    assert first + (frames - 1) * stride < LENGTHS[label]


def test_every_shot_once_an_epoch_in_a_new_order():
  batches, _ = take(Source(LENGTHS), 10, batch=6)
  _, shots = starts_and_shots(batches)
  epochs = shots.reshape(10, 6)
  np.testing.assert_array_equal(np.sort(epochs), [[0, 1, 2, 3, 4, 6]] * 10)
  assert len({tuple(epoch) for epoch in epochs}) > 5


def test_starts_are_uniform_over_the_legal_ones():
  batches, _ = take(Source((9, 4), record=4), 50, batch=24)
  starts, shots = starts_and_shots(batches)
  counts = np.bincount(starts[shots == 0])
  assert len(counts) == 6 and counts.sum() == 600
  # Chi-square with 5 degrees of freedom: 20.5 is its 99.9 % quantile.
  assert np.sum((counts - 100) ** 2 / 100) < 20.5


@pytest.mark.parametrize(
  'options, sides',
  [
    (dict(crop=4), (4, 4)),  # Of 8 px, all stored ones.
    (dict(resolution=4, zoom=(1.0, 2.0)), (4, 8)),
    (dict(resolution=4, crop=2, zoom=(1.0, 1.0)), (4, 4)),
    (dict(resolution=4, crop=2, zoom=(2.0, 2.0)), (2, 2)),
  ],
)
def test_crops_lie_anywhere_and_have_the_size_asked_for(options, sides):
  batches, _ = take(Source(LENGTHS), 30, frames=1, **options)
  clips = np.concatenate([batch['video'] for batch in batches])
  size = options.get('crop', options.get('resolution'))
  assert clips.shape == (360, 1, size, size, 3)
  # Blue is the column: its mean and its range say which part this is.
  blue = clips[:, 0, 0, :, 2].astype(float)
  step = (blue[:, -1] - blue[:, 0]) / (size - 1)
  found = np.rint(step * size)
  assert (found.min(), found.max()) == sides
  smallest = blue[found == sides[0]].mean(axis=1)
  centres = np.unique(np.rint(2 * smallest))
  # A part of `side` px lies at any of SIZE - side + 1 columns.
  assert len(centres) == SIZE - sides[0] + 1


def test_zooms_are_uniform_between_their_ends():
  source = Source(LENGTHS)
  image = np.zeros((SIZE, SIZE, 3), np.uint8)
  # Columns are 30 levels apart, so that rounding hides none of the sides.
  image[..., 2] = 30 * np.arange(SIZE)
  stored = coding.encode_frame(image, 'webp')
  source._frames = {k: [stored] * len(x) for k, x in source._frames.items()}
  batches, _ = take(source, 40, frames=1, resolution=4, zoom=(1.0, 2.0))
  clips = np.concatenate([batch['video'] for batch in batches])
  blue = clips[:, 0, 0, :, 2] / 30.0
  sides = np.rint((blue[:, -1] - blue[:, 0]) / 3 * 4).astype(int)
  counts = np.bincount(sides, minlength=9)
  assert counts[:4].sum() == 0 and counts.sum() == 480
  # A zoom of z shows 8 / z px, rounded: 8 below 8 / 7.5, 7 below 8 / 6.5, ...
  ends = 8 / np.array([8.0, 7.5, 6.5, 5.5, 4.5, 4.0])
  wanted = 480 * np.diff(ends)
  # Chi-square with 4 degrees of freedom: 18.5 is its 99.9 % quantile.
  assert np.sum((counts[:3:-1] - wanted) ** 2 / wanted) < 18.5


def test_crops_are_the_same_for_any_number_of_processes():
  options = dict(resolution=4, crop=2, zoom=(1.0, 2.0), flip=True)
  whole, _ = take(Source(LENGTHS), 2, **options)
  parts = [
    take(Source(LENGTHS), 2, process_index=i, process_count=2, **options)[0]
    for i in range(2)
  ]
  for n, batch in enumerate(whole):
    joined = np.concatenate([part[n]['video'] for part in parts])
    np.testing.assert_array_equal(joined, batch['video'])


def test_whole_frames_are_drawn_as_without_crops():
  plain, _ = take(Source(LENGTHS), 2, flip=True)
  assert_same(plain, take(Source(LENGTHS), 2, flip=True, crop=SIZE)[0])


def test_crops_that_would_enlarge_are_refused():
  for options in (
    dict(crop=9),
    dict(zoom=(1.0, 1.5)),
    dict(resolution=4, zoom=(0.5, 1.0)),
  ):
    with pytest.raises(ValueError, match='cannot be cut from frames'):
      take(Source(LENGTHS), 1, **options)


def test_more_rows_than_shots():
  batches, _ = take(Source((30, 25)), 2, batch=16)
  for batch in batches:
    assert np.bincount(batch['label']).tolist() == [8, 8]
  starts, _ = starts_and_shots(batches)
  assert len(set(starts)) > 8


@pytest.mark.parametrize('processes', [2, 3, 4])
def test_processes_share_the_same_batches(processes):
  source = Source(LENGTHS, broken=(100,))
  whole, replaced = take(source, 3, flip=True)
  parts, counts = zip(
    *(
      take(source, 3, flip=True, process_index=i, process_count=processes)
      for i in range(processes)
    )
  )
  joined = [
    {key: np.concatenate([b[key] for b in step]) for key in step[0]}
    for step in zip(*parts)
  ]
  assert_same(joined, whole)
  assert sum(counts) == replaced > 0


def test_threads_and_a_start_in_the_middle_change_nothing():
  source = Source(LENGTHS, broken=(100,))
  whole, _ = take(source, 6, flip=True)
  assert_same(take(source, 6, flip=True, threads=3)[0], whole)
  assert_same(take(source, 2, flip=True, threads=2, start=4)[0], whole[4:])


def test_the_end():
  source = Source(LENGTHS)
  batches = make_batches(source, start=1, stop=3)
  assert_same(list(batches), take(source, 3)[0][1:])
  with pytest.raises(StopIteration):
    next(batches)
  assert not list(make_batches(source, start=3, stop=3))


def test_seed_and_stage_change_the_batches():
  source = Source(LENGTHS)
  seen = {
    take(source, 1, seed=seed, stage=stage)[0][0]['video'].tobytes()
    for seed in (0, 1)
    for stage in ('image', 'video')
  }
  assert len(seen) == 4


def test_batches_are_those_of_earlier_versions():
  # If this fails after an upgrade of NumPy, or a change here, runs
  # that are resumed will see other data than they would have: say so in the
  # release's notes, then pin the new numbers.
  batches, _ = take(Source(LENGTHS), 1, batch=6)
  starts, shots = starts_and_shots(batches)
  assert shots.tolist() == [0, 4, 6, 2, 3, 1]
  assert starts.tolist() == [4, 1, 1, 0, 1, 12]


def test_flips_mirror_half_of_the_clips():
  batches, _ = take(Source(LENGTHS), 25, flip=True)
  ramps = np.concatenate([b['video'] for b in batches])[:, :, :, :, 2]
  mirrored = ramps[:, 0, 0, 0] == SIZE - 1
  # 300 draws: 5 deviations of a fair coin are 43.
  assert abs(mirrored.sum() - 150) < 43
  assert (ramps[mirrored] == np.arange(SIZE)[::-1]).all()
  assert (ramps[~mirrored] == np.arange(SIZE)).all()
  plain, _ = take(Source(LENGTHS), 1)
  assert (plain[0]['video'][..., 0, 2] == 0).all()


def test_smaller_clips_are_area_means():
  full, _ = take(Source(LENGTHS), 1)
  half, _ = take(Source(LENGTHS), 1, resolution=SIZE // 2)
  blocks = full[0]['video'].reshape(12, 4, SIZE // 2, 2, SIZE // 2, 2, 3)
  # OpenCV rounds a mean of x.5 up.
  means = np.floor(blocks.mean((3, 5)) + 0.5)
  np.testing.assert_array_equal(half[0]['video'], means)


def test_a_bad_record_is_replaced_by_the_next_shot():
  source = Source(LENGTHS)
  whole, none = take(source, 4)
  source.broken = frozenset(
    source.index['row'][source.index['shot'] == 3].tolist()
  )
  batches, replaced = take(source, 4)
  hit = np.concatenate([b['label'] for b in whole]) == 3
  labels = np.concatenate([b['label'] for b in batches])
  # Shot 4 comes after shot 3; every other row is as it was.
  assert none == 0 and replaced == hit.sum() == 8
  assert (labels[hit] == 4).all()
  for key in ('video', 'label'):
    before = np.concatenate([b[key] for b in whole])
    after = np.concatenate([b[key] for b in batches])
    np.testing.assert_array_equal(after[~hit], before[~hit])


def test_a_frame_that_is_no_frame_is_a_bad_record():
  source = Source(LENGTHS)
  source._frames[100] = [b'not a frame'] * 5
  source._frames[102] = source._frames[102][:1]
  source._frames[106][1] = coding.encode_frame(
    np.zeros((4, 4, 3), np.uint8), 'webp'
  )
  _, replaced = take(source, 8)
  assert replaced > 0


def test_too_many_bad_records_stop_the_run(caplog):
  source = Source(LENGTHS, broken=range(100, 106))
  good = []
  for threads in (0, 3):
    with make_batches(source, threads=threads, batch=2, max_bad=2) as batches:
      with pytest.raises(clip_reader.BadRecordsError) as caught:
        for n, _ in enumerate(batches):
          last = n
      good.append(last)
      assert not list(batches)
  assert good[0] == good[1] > 0  # The same step for any number of threads.
  message = str(caught.value)
  assert message.startswith('3 records of fake cannot be read')
  assert re.search(r'first are s\df\d+ \(RuntimeError: chunk data', message)
  assert 'hash mismatch' in caplog.text


def test_a_data_set_with_nothing_readable_says_so():
  source = Source((9, 8), broken=range(100, 120))
  with pytest.raises(clip_reader.BadRecordsError, match='2 records of fake'):
    take(source, 1)
  with pytest.raises(clip_reader.BadRecordsError, match='records of fake'):
    eval_clips.load_clips(
      source, clip_spec.ClipSpec(frames=4, stride=1, resolution=SIZE), 3
    )


def test_worker_processes_change_nothing_and_pass_errors_on():
  # Shots 0 and 2 cannot be read at all; the third bad record stops the run.
  source = Source(LENGTHS, broken=(100, 101, 106))
  options = dict(batch=2, flip=True, max_bad=2)
  runs = []
  for workers in (0, 2):
    seen = []
    with make_batches(source, **options, workers=workers) as batches:
      with pytest.raises(clip_reader.BadRecordsError) as caught:
        seen.extend(batches)
      runs.append((seen, str(caught.value), batches.bad_records))
  alone, many = runs
  assert_same(many[0], alone[0])
  assert many[1:] == alone[1:]
  assert len(many[0]) > 2 and type(many[0][0]['video']) is np.ndarray


def test_captions_are_those_of_the_clips_for_any_sharing():
  source = Source(LENGTHS)
  shots = len(LENGTHS)
  words = tuple(vocabulary.build(source.index['caption'].tolist(), 20))
  texts = vocabulary.Words(words, 4)
  whole, _ = take(source, 3, texts=texts)
  first = {name: words.index(f'shot{i}') for i, name in enumerate(range(shots))}
  for batch in whole:
    shot = batch['video'][:, 0, 0, 0, 0]
    assert batch['words'].dtype == np.int32
    np.testing.assert_array_equal(
      batch['words'][:, 2], [vocabulary.FIRST + first[i] for i in shot]
    )
    assert (batch['words'][:, 3] == vocabulary.NONE).all()
  plain, _ = take(source, 3)
  for options in (dict(threads=3), dict(workers=2)):
    assert_same(take(source, 3, texts=texts, **options)[0], whole)
  parts = [
    take(source, 3, texts=texts, process_index=i, process_count=2)[0]
    for i in range(2)
  ]
  for n, batch in enumerate(whole):
    both = [part[n]['words'] for part in parts]
    np.testing.assert_array_equal(np.concatenate(both), batch['words'])
    assert_same([conditions_left_out(batch)], [plain[n]])


def conditions_left_out(batch):
  return {name: x for name, x in batch.items() if name != 'words'}


def test_clips_to_evaluate_on_have_their_captions():
  source = Source(LENGTHS)
  texts = vocabulary.Words(('clip', 'of', 'shot1'), 3)
  spec = clip_spec.ClipSpec(frames=4, stride=1, resolution=SIZE)
  clips = eval_clips.load_clips(source, spec, 6, texts=texts)
  shot = clips['video'][:, 0, 0, 0, 0]
  assert clips['caption'].tolist() == [f'clip of shot{i}' for i in shot]
  known = np.where(shot == 1, 4, vocabulary.UNKNOWN)
  np.testing.assert_array_equal(clips['words'][:, 2], known)
  batches = pipeline.RepeatedBatches(clips, 8, 1, 2)
  batch = next(batches)
  assert batch.keys() == {'video', 'label', 'words'}
  np.testing.assert_array_equal(
    batch['words'], clips['words'][np.arange(4, 8) % 6]
  )


TRAINER = """
import multiprocessing, sys, time
from absl import flags
import tiny_source
if __name__ == '__main__':
  flags.FLAGS.mark_as_parsed()
  source = tiny_source.Source(tiny_source.LENGTHS)
  batches = tiny_source.make_batches(source, workers=1)
  next(batches)
  print(*[p.pid for p in multiprocessing.active_children()], flush=True)
  if sys.argv[1] == 'wait':
    time.sleep(60)
"""


def _alive(pid):
  try:
    state = pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')')[1].split()
  except (FileNotFoundError, ProcessLookupError):  # The second: while it ends.
    return False
  return state[0] != 'Z'


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_workers_end_with_their_trainer(tmp_path):
  script = tmp_path / 'trainer.py'
  script.write_text(TRAINER)
  here = pathlib.Path(__file__).parent
  trainers = [
    subprocess.Popen(
      [sys.executable, script, mode],
      env=os.environ | {'PYTHONPATH': f'{here}:{here.parent}'},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for mode in ('wait', 'end')
  ]
  killed, ended = trainers
  try:
    pids = [int(pid) for pid in killed.stdout.readline().split()]
    assert len(pids) == 1 and _alive(pids[0])
    killed.send_signal(signal.SIGKILL)
    deadline = time.time() + 10
    while _alive(pids[0]) and time.time() < deadline:
      time.sleep(0.1)
    assert not _alive(pids[0])
    # One that returns without closing its batches ends quietly, too.
    output, errors = ended.communicate(timeout=100)
    assert ended.returncode == 0 and 'Traceback' not in errors, errors
    assert not _alive(int(output))
  finally:
    for trainer in trainers:
      trainer.kill()
      trainer.communicate()


def test_workers_need_parsed_flags(monkeypatch):
  monkeypatch.setattr(flags, 'FLAGS', flags.FlagValues())
  with pytest.raises(RuntimeError, match='mark_as_parsed'):
    make_batches(Source(LENGTHS), workers=1)


def test_what_the_data_set_lacks_is_refused():
  source = Source(LENGTHS)
  with pytest.raises(ValueError, match='multiple'):
    take(source, 1, process_count=5)
  with pytest.raises(ValueError, match='stores 8 px'):
    take(source, 1, resolution=16)
  with pytest.raises(ValueError, match='lower frames'):
    take(source, 1, frames=21)
