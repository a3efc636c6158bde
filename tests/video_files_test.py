"""Files are decoded again and compared with the arrays they came from."""

import io

import av
import numpy as np
from PIL import Image
import pytest

from vdm.data.synthetic import scenes
from vdm.media import video_files as media


def _clips(count=4):
  clips = [
    scenes.render(i, seed=0, resolution=64, frames=8) for i in range(count)
  ]
  return np.stack([clip['frames'] for clip in clips])


def _psnr(a, b):
  error = np.square(a.astype(float) - b.astype(float)).mean()
  return 10 * np.log10(255**2 / max(error, 1e-10))


def _decode_gif(data):
  image = Image.open(io.BytesIO(data))
  frames, times = [], []
  for i in range(image.n_frames):
    image.seek(i)
    frames.append(np.asarray(image.convert('RGB')))
    times.append(image.info['duration'])
  return np.stack(frames), times


def test_mp4_keeps_colours_and_says_which_they_are(tmp_path):
  video = media.tile(_clips(), columns=2)
  path = tmp_path / 'new' / 'folder' / 'video.mp4'
  media.write_mp4(path, video, 25.0, upscale=2)
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    frames = list(container.decode(video=0))
    context = stream.codec_context
    assert (context.name, context.pix_fmt) == ('h264', 'yuv420p')
    assert stream.average_rate == 25
    # BT.709 (1) and limited range (1), for all that a player asks about.
    assert {int(frames[0].colorspace), int(frames[0].color_range)} == {1}
    assert {context.color_primaries, context.color_trc} == {1}
    decoded = np.stack([frame.to_ndarray(format='rgb24') for frame in frames])
  expected = media.enlarge(video, 2)
  assert decoded.shape == expected.shape
  assert _psnr(decoded, expected) > 40
  data = path.read_bytes()
  assert data.index(b'moov') < data.index(b'mdat')
  assert [file.name for file in path.parent.iterdir()] == ['video.mp4']


def test_mp4_of_odd_size_and_odd_rate(tmp_path):
  video = _clips(1)[0, :, :33, :35]
  path = tmp_path / 'odd.mp4'
  media.write_mp4(path, video, 30000 / 1001)
  with av.open(str(path)) as container:
    frames = list(container.decode(video=0))
    rate = container.streams.video[0].average_rate
  assert len(frames) == 8 and (frames[0].height, frames[0].width) == (34, 36)
  assert float(rate) == pytest.approx(29.97, abs=0.01)


def test_mp4_plain_colours_come_back(tmp_path):
  # Each colour over a whole frame: no subsampling hides a wrong matrix.
  colours = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [9, 99, 199]]
  )
  video = np.ones([5, 32, 32, 1], np.uint8) * colours[:, None, None]
  path = tmp_path / 'plain.mp4'
  media.write_mp4(path, video.astype(np.uint8), 25)
  with av.open(str(path)) as container:
    for frame, colour in zip(container.decode(video=0), colours, strict=True):
      mean = frame.to_ndarray(format='rgb24').mean((0, 1))
      np.testing.assert_allclose(mean, colour, atol=6)


def test_gif_keeps_frames_colours_and_time():
  video = media.tile(_clips(), columns=2)
  frames, times = _decode_gif(media.gif_bytes(video, 30, upscale=2))
  expected = media.enlarge(video, 2)
  assert frames.shape == expected.shape
  assert _psnr(frames, expected) > 40
  assert set(times) == {30, 40}  # Counted in 10 ms.
  assert sum(times) == pytest.approx(8 / 30 * 1000, abs=5)


def test_gif_and_png_come_back(tmp_path):
  video = _clips(1)[0]
  frames, times = _decode_gif(media.gif_bytes(video, 25))
  assert frames.shape == video.shape and set(times) == {40}
  media.write_png(tmp_path / 'a.png', video[0])
  read = np.asarray(Image.open(tmp_path / 'a.png'))
  np.testing.assert_array_equal(read, video[0])


def test_enlarge_repeats_pixels():
  video = np.arange(2 * 3 * 5 * 3, dtype=np.uint8).reshape(2, 3, 5, 3)
  large = media.enlarge(video, 4)
  np.testing.assert_array_equal(large[:, 1::4, 2::4], video)
  np.testing.assert_array_equal(large[:, 3::4, ::4], video)
  assert media.enlarge(np.zeros([1, 64, 64, 3], np.uint8)).shape[1] == 256
  assert media.enlarge(np.zeros([1, 500, 64, 3], np.uint8)).shape[1] == 2000
  assert media.enlarge(np.zeros([1, 500, 500, 3], np.uint8)).shape[1] == 500


def test_tile_lays_out_row_by_row():
  videos = _clips(5)
  grid = media.tile(videos, columns=3, pad=2)
  assert grid.shape == (8, 130, 196, 3)
  np.testing.assert_array_equal(grid[:, :64, 66:130], videos[1])
  np.testing.assert_array_equal(grid[:, 66:, :64], videos[3])
  titled = media.tile(videos, 3, captions=['a', 'b', 'c', 'long text', 'gy'])
  head = titled[0, : titled.shape[1] // 2 - 65, :64]
  assert head.min() < 100  # Something is written.
  np.testing.assert_array_equal(titled[:, -64:, :64], videos[3])


def test_contact_sheet_shows_first_and_last_frame():
  videos = _clips(2)
  sheet = media.contact_sheet(videos, captions=['one', 'two\nlines'], frames=4)
  rows = [
    (y, x)
    for y in range(sheet.shape[0] - 63)
    for x in range(sheet.shape[1] - 63)
    if (sheet[y : y + 64, x : x + 64] == videos[1, -1]).all()
  ]
  assert rows == [(sheet.shape[0] - 68, sheet.shape[1] - 68)]
  bare = media.contact_sheet(videos, frames=4)
  assert bare.shape[1] == 4 * 68 and sheet.shape[1] > bare.shape[1]
  np.testing.assert_array_equal(sheet[:, -4 * 68 :], bare)


def test_wrong_arrays_are_refused():
  with pytest.raises(ValueError, match='uint8'):
    media.gif_bytes(np.zeros([2, 8, 8, 3], np.float32), 25)
  with pytest.raises(ValueError, match='axes'):
    media.tile(np.zeros([2, 8, 8, 3], np.uint8))
  with pytest.raises(ValueError, match='nothing'):
    media.gif_bytes(np.zeros([0, 8, 8, 3], np.uint8), 25)
  with pytest.raises(ValueError, match='captions'):
    media.contact_sheet(_clips(2), captions=['one'])
  with pytest.raises(ValueError, match='integer'):
    media.enlarge(np.zeros([2, 8, 8, 3], np.uint8), 0)
