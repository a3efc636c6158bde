"""Rules over made-up videos; what real ones must survive."""

import av
import cv2
import numpy as np
import pytest

from vdm.config import schema
from vdm.preparation import inspection
from vdm.preparation import shot_detection
from vdm.preparation.screening import letterbox
from vdm.preparation.screening import observe
from vdm.preparation.screening import overlay
from vdm.preparation.screening import rules


def screening(*names, **changes):
  settings = schema.default().data.screening.to_dict()
  return dict(settings, rules=names or schema.SCREENING, **changes)


def observed(frames, rate=25.0):
  observer = observe.Observer(rate)
  for image in frames:
    frame = av.VideoFrame.from_ndarray(image, format='rgb24')
    observer.visit(frame.reformat(format='yuv420p'))
  return observer


def pan(n, speed=3.0, seed=0, size=(72, 128)):
  """A camera that moves over a picture with detail, [n h w 3]."""
  rng = np.random.default_rng(seed)
  height, width = size
  wide = int(width + n * abs(speed)) + 8
  picture = sum(
    cv2.resize(
      rng.normal(0, 1, (height // k, wide // k, 3)),
      (wide, height),
      interpolation=cv2.INTER_CUBIC,
    )
    * k
    for k in (4, 8, 16)
  )
  picture = 128 + 45 * picture / picture.std()
  frames = [
    cv2.warpAffine(
      picture, np.float32([[1, 0, -i * speed], [0, 1, 0]]), (width, height)
    )
    for i in range(n)
  ]
  return np.clip(frames, 0, 255).astype(np.uint8)


def labels(segments):
  return [(s.start, s.stop, s.reason) for s in segments]


def test_every_rule_is_named_in_the_configuration():
  # These five act where they are looked for, the others on whole shots.
  acting = ('cuts', 'blank', 'frozen', 'letterbox', 'duplicate')
  assert {*rules.SHOT_RULES, *acting} == set(schema.SCREENING)


def test_small_copies_are_area_means():
  frames = pan(2)
  thumbnails = observed(frames).thumbnails()
  means = frames.reshape(2, 18, 4, 32, 4, 3).mean((2, 4))
  assert thumbnails.shape == (2, 18, 32, 3)
  # Through limited-range YUV with halved chroma and back.
  assert np.abs(thumbnails - means).mean() < 6


@pytest.mark.parametrize(
  'pixel_format', ['yuv420p10le', 'gray', 'nv12', 'rgb24']
)
def test_any_pixel_format_can_be_observed(pixel_format):
  observer = observe.Observer(25.0)
  frame = av.VideoFrame.from_ndarray(pan(1)[0], format='rgb24')
  observer.visit(frame.reformat(format=pixel_format))
  assert len(observer.samples) == 1


def test_motion_is_in_widths_a_second():
  # 3 of 128 px a frame, 25 frames a second.
  observer = observed(pan(60, speed=3.0))
  (segment,) = rules.segments(observer.thumbnails(), 25.0, screening())
  measures = rules.measure(segment, observer.thumbnails(), observer.samples)
  assert measures['motion'] == pytest.approx(3 / 128 * 25, rel=0.2)
  assert observed(pan(60, speed=0.0)).samples[0].motion < 1e-3
  assert measures['brightness'] == pytest.approx(128, abs=6)


def test_long_videos_keep_few_grey_copies(monkeypatch):
  monkeypatch.setattr(observe, '_MAX_GREYS', 8)
  observer = observed(pan(30, size=(32, 32)).repeat(20, 0), rate=4.0)
  samples = observer.samples
  kept = [s.index for s in samples if s.grey is not None]
  assert len(samples) == 300 and 4 <= len(kept) <= 8
  assert len(set(np.diff(kept))) == 1  # Evenly over the whole video.
  assert all((s.rows is None) == (s.grey is None) for s in samples)


def test_segments_hold_every_frame_once():
  black = np.zeros((30, 72, 128, 3), np.uint8)
  still = pan(1, seed=3).repeat(70, 0)
  frames = np.concatenate([pan(40, seed=1), black, pan(40, seed=2), still])
  segments = rules.segments(observed(frames).thumbnails(), 25.0, screening())
  assert labels(segments) == [
    (0, 40, ''),
    (40, 70, 'blank'),
    (70, 110, ''),
    (110, 180, 'frozen'),
  ]
  # Rules that are not in force leave everything as it is.
  thumbnails = observed(frames).thumbnails()
  off = rules.segments(thumbnails, 25.0, screening('overlay'))
  assert labels(off) == [(0, 180, '')]
  cuts = rules.segments(thumbnails, 25.0, screening('cuts'))
  assert [s.start for s in cuts] == [0, 40, 70, 110]


def test_repeated_frames_are_not_frozen():
  thumbnails = observed(pan(60)).thumbnails()
  # What 12 to 25 frames a second, and a stutter of half a second, leave.
  stutter = np.concatenate(
    [thumbnails[:20], thumbnails[20:21].repeat(14, 0), thumbnails[21:]]
  )
  for kept in (thumbnails.repeat(2, 0), stutter):
    assert not rules.frozen_frames(kept, 25.0, 2.0, 2.0).any()


def test_a_slow_change_is_not_frozen():
  ramp = np.linspace(60, 120, 100)[:, None, None, None]
  thumbnails = np.broadcast_to(ramp, (100, 18, 32, 3)).round().astype(np.uint8)
  assert not rules.frozen_frames(thumbnails, 25.0, 2.0, 2.0).any()
  noise = np.random.default_rng(0).integers(0, 2, thumbnails.shape, np.uint8)
  assert rules.frozen_frames(noise + 90, 25.0, 2.0, 2.0).all()


def test_blank_is_of_any_colour():
  thumbnails = np.zeros((4, 18, 32, 3), np.uint8)
  thumbnails[1] = (200, 30, 90)
  thumbnails[2] = np.linspace(100, 140, 32)[:, None]
  thumbnails[3, :9] = 255
  assert rules.blank_frames(thumbnails, 6.0).tolist() == [
    True,
    True,
    False,
    False,
  ]


def barred(frames, top, bottom, left=0, right=0):
  frames = frames.copy()
  height, width = frames.shape[1:3]
  frames[:, :top] = frames[:, height - bottom :] = 0
  frames[:, :, :left] = frames[:, :, width - right :] = 0
  return frames


def test_letterbox_is_found_and_nothing_else():
  frames = pan(30, size=(144, 256))
  assert letterbox.find(observed(frames).samples) is None
  box = letterbox.find(observed(barred(frames, 18, 18)).samples)
  assert box == (20, 124, 0, 256)
  box = letterbox.find(observed(barred(frames, 18, 19, 32, 32)).samples)
  assert box == (20, 124, 34, 222)
  # Dark on one side alone is part of the scene; so is a dark picture.
  assert letterbox.find(observed(barred(frames, 40, 0)).samples) is None
  assert letterbox.find(observed(frames // 16).samples) is None
  # One shot without bars: none for the file.
  mixed = np.concatenate([barred(frames, 18, 18), frames])
  assert letterbox.find(observed(mixed).samples) is None


@pytest.mark.parametrize('rows', [1, 2, 5])
def test_dark_videos_with_light_at_one_edge_have_no_bars(rows):
  frames = np.zeros((6, 144, 256, 3), np.uint8)
  frames[:, :rows] = 200
  assert letterbox.find(observed(frames).samples) is None
  sideways = np.zeros((6, 144, 256, 3), np.uint8)
  sideways[:, :, :rows] = 200
  assert letterbox.find(observed(sideways).samples) is None


def burn(frames, opacity, text='WATERMARK 24'):
  mark = np.zeros(frames.shape[1:], np.uint8)
  height, width = mark.shape[:2]
  place = (width // 10, height - height // 4)
  cv2.putText(mark, text, place, 0, width / 280, (255,) * 3, 1, cv2.LINE_AA)
  weight = opacity * (mark / 255.0)
  return (frames * (1 - weight) + 255 * weight).astype(np.uint8)


def test_overlays_are_scored_where_the_picture_moves():
  frames = pan(150, speed=4.0, size=(144, 256))
  limit = screening()['max_overlay']

  def score(frames):
    return overlay.score([s.grey for s in observed(frames).samples])

  assert score(frames) < limit / 2
  assert score(burn(frames, 1.0)) > limit
  assert score(burn(frames, 0.5)) > limit
  # Of a still picture nothing can be said, nor of a few samples.
  assert score(burn(pan(150, speed=0.0), 1.0)) is None
  assert score(burn(frames[:30], 1.0)) is None


def greys(frames, seed=0):
  """Samples of a shot with a little sensor noise."""
  noise = np.random.default_rng(seed).normal(0, 1, np.shape(frames))
  return list(np.clip(frames + noise, 0, 255).round().astype(np.uint8))


def rooms(offsets, seed=0, size=(144, 256)):
  """A picture with hard edges, seen by a camera at offsets (x, y), px."""
  rng = np.random.default_rng(seed)
  height, width = size
  wide = np.full((height + 80, width + 400), 110, np.float32)
  for _ in range(60):
    x, y = rng.integers(0, (wide.shape[1], wide.shape[0])).tolist()
    a, b = rng.integers(10, 70, 2).tolist()
    level = float(rng.uniform(20, 230))
    cv2.rectangle(wide, (x, y), (x + a, y + b), level, -1)
  wide += cv2.resize(rng.normal(0, 20, (28, 82)), wide.shape[::-1])
  return np.stack(
    [
      cv2.warpAffine(
        wide, np.float32([[1, 0, -x - 30], [0, 1, -y - 30]]), (width, height)
      )
      for x, y in offsets
    ]
  )


def pans(step, n=16):
  return [(step * i, 0) for i in range(n)]


def lit(frames, start, stop):
  """Light that goes from one share to another."""
  return frames * np.linspace(start, stop, len(frames))[:, None, None]


@pytest.mark.parametrize('seed', range(3))
def test_what_becomes_brighter_or_darker_is_no_overlay(seed):
  """Nothing can be told of a picture that does not move under an edge."""
  still = rooms(pans(0), seed)
  x = np.arange(256)
  places = 16 * np.arange(16)[:, None, None]
  spot = 0.3 + np.exp(-((x - places) ** 2) / 5e3)
  side = [0.3 + 0.9 * (x / 256 * a + (1 - x / 256) * (1 - a)) for a in (0, 1)]
  curve = np.linspace(0.5, 2, 16)[:, None, None]
  for frames in (
    lit(still, 1, 0),  # A fade-out,
    np.concatenate([still[:8], lit(still[:8], 1, 0)]),  # a quick one,
    lit(still, 0, 1),  # a fade-in,
    255 - lit(255 - still, 1, 0),  # and one to white.
    lit(still, 1, 0.4),
    lit(still, 1, 2),
    255 * (np.clip(still, 0, 255) / 255) ** curve,
    still * spot,  # A lamp that moves,
    still * np.linspace(*side, 16)[:, None],  # and one that takes over.
    still * np.random.default_rng(seed).uniform(0.5, 1.1, (16, 1, 1)),
  ):
    assert overlay.score(greys(frames)) is None


@pytest.mark.parametrize('seed', range(3))
def test_a_camera_in_the_hand_is_no_overlay(seed):
  rng = np.random.default_rng(seed)
  limit = screening()['max_overlay']
  for amount in (0.5, 1, 2, 3, 5):
    frames = rooms(rng.normal(0, amount, (16, 2)), seed)
    assert overlay.score(greys(frames)) is None
    assert overlay.score(greys(lit(frames, 1, 0.4))) is None
  # Held still, then moved; or moved so slowly that most of it stays.
  for offsets in (
    [(max(0, i - 7) * 20, 0) for i in range(16)],
    pans(1),
    pans(4),
    pans(20),
  ):
    for frames in (rooms(offsets, seed), lit(rooms(offsets, seed), 1, 0.1)):
      share = overlay.score(greys(frames))
      assert share is None or share < limit


@pytest.mark.parametrize(
  'text, place, opacity',
  [
    ('WHO IS THERE?', (30, 130), 1.0),  # A subtitle.
    ('CHANNEL 5', (165, 30), 1.0),  # A logo in the corner.
    ('shutterstock', (50, 80), 0.3),
  ],
)
@pytest.mark.parametrize('seed', range(3))
def test_overlays_are_found_over_any_motion(seed, text, place, opacity):
  limit = screening()['max_overlay']
  mark = np.zeros((144, 256), np.uint8)
  cv2.putText(mark, text, place, 0, 0.6, 255, 1, cv2.LINE_AA)
  weight = opacity * mark / 255

  def score(frames):
    return overlay.score(greys(frames * (1 - weight) + 255 * weight))

  jumps = np.random.default_rng(seed).uniform(-25, 25, (16, 2))
  for offsets in (pans(8), pans(20), jumps):
    frames = rooms(offsets, seed)
    assert score(frames) > limit
    assert score(lit(frames, 1, 0.3)) > limit
  # Over a still picture one cannot tell it from the scene.
  for frames in (rooms(pans(0), seed), lit(rooms(pans(0), seed), 1, 0.2)):
    assert score(frames) is None


def test_real_clips_have_no_overlay_and_burned_in_ones_are_found(shared):
  limit = screening()['max_overlay']
  for name in ('v_IceDancing_g02_c05.mp4', 'v_HorseRiding_g01_c03.mp4'):
    observer = observe.Observer(25.0)
    with av.open(str(shared / 'clips/raw_mpeg4' / name)) as container:
      for frame in container.decode(video=0):
        observer.visit(frame)
    frames = np.stack([s.grey for s in observer.samples])
    assert overlay.score(list(frames)) < limit / 2
    assert overlay.score(greys(lit(frames, 1, 0.2))) in (None, 0)
    marked = burn(frames[..., None], 0.5)[..., 0]
    assert overlay.score(list(marked)) > limit


def test_rules_object_to_what_they_are_about():
  fine = dict(distinct=1.0, overlay=None, motion=0.1)
  settings = screening()
  assert rules.violated_rule(fine, settings) == ''
  for reason, change in {
    'low_frame_rate': dict(distinct=0.1),
    'overlay': dict(overlay=0.5),
    'low_motion': dict(motion=0.0),
    'high_motion': dict(motion=9.0),
  }.items():
    measures = dict(fine, **change)
    assert rules.violated_rule(measures, settings) == reason
    assert rules.violated_rule(measures, screening('cuts')) == ''
  unknown = dict(distinct=1.0, overlay=None, motion=None)
  assert rules.violated_rule(unknown, settings) == ''


def test_real_clips_survive_the_default(shared):
  """UCF101 has repeated frames and faces that hardly move."""
  paths = sorted((shared / 'clips/ucf101').rglob('*.avi'))
  assert paths
  for path in paths:
    observer = observe.Observer(25.0)
    source = inspection.inspect(
      str(path),
      visit=lambda frame, rate: observer.visit(frame),  # noqa: B023
    )
    thumbnails = observer.thumbnails()
    (segment,) = rules.segments(thumbnails, source.frame_rate, screening())
    assert (segment.start, segment.stop) == (0, len(source.times))
    measures = rules.measure(segment, thumbnails, observer.samples)
    assert rules.violated_rule(dict(measures, distinct=1.0), screening()) == ''
    assert segment.reason == '', path
    assert letterbox.find(observer.samples) is None


def test_cuts_and_fades_meet_blank_frames():
  a, b = pan(40, seed=4), pan(40, seed=5)
  weights = np.linspace(1, 0, 22)[1:-1, None, None, None]
  fade = (weights * a[-1]).astype(np.uint8)
  black = np.zeros((20, 72, 128, 3), np.uint8)
  frames = np.concatenate([a, a[-1:].repeat(9, 0), fade, black, b])
  segments = rules.segments(observed(frames).thumbnails(), 25.0, screening())
  reasons = [s.reason for s in segments]
  assert reasons == ['', 'transition', 'blank', '']
  assert segments[-1].start == 89 and segments[-1].stop == 129
  assert abs(segments[1].start - 49) <= 2
  assert shot_detection.HEIGHT == 18
