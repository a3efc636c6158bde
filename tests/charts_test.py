"""Charts keep what matters of a series, and what they are given."""

import html
import io
import json
import re

import numpy as np
from PIL import Image

from vdm.media import charts
from vdm.media import loops
from vdm.media import video_files


def content_of(chart):
  """What a chart's script reads."""
  return json.loads(html.unescape(re.search(r'data-chart="(.*?)"', chart)[1]))


def test_thinning_keeps_spikes_ends_and_what_is_not_finite():
  y = np.sin(np.arange(100_000) / 5000)
  y[12_345], y[54_321], y[77_777] = 1000.0, -1000.0, np.nan
  kept = charts.thin(y, 300)
  assert len(kept) <= 2 * 300 + 3
  assert (np.diff(kept) > 0).all()
  assert {0, 99_999, 12_345, 54_321, 77_777} <= set(kept.tolist())
  # Each part's largest and smallest value, so the outline is that of all.
  for start in range(0, 100_000, 10_000):
    part = y[start : start + 10_000]
    inside = y[kept[(kept >= start) & (kept < start + 10_000)]]
    assert np.nanmax(part) == np.nanmax(inside)
    assert np.nanmin(part) == np.nanmin(inside)


def test_short_series_are_kept_whole():
  assert charts.thin(np.full(600, np.nan), 300).tolist() == list(range(600))
  assert charts.thin(np.zeros(0)).tolist() == []


def test_a_chart_holds_its_numbers_and_no_markup():
  evil = '"><script>alert(1)</script>'
  x = {'step': np.array([1, 2, 3]), 'hours': np.array([0.1, 0.2, 1 / 3])}
  y = np.array([0.123456789, np.inf, np.nan])
  line = charts.Series(evil, x, y, colour=2, dashed=True)
  chart = charts.chart(evil, [line], logarithmic=True)
  assert '<script' not in chart
  assert content_of(chart) == {
    'log': True,
    'series': [
      {
        'name': evil,
        'colour': 2,
        'dashed': True,
        'x': {'step': [1, 2, 3], 'hours': [0.1, 0.2, 0.33333]},
        'y': [0.12346, None, None],
      }
    ],
  }


def test_moving_pictures_are_read_back(tmp_path):
  rng = np.random.default_rng(0)
  video = rng.integers(0, 256, (5, 8, 12, 3), np.uint8)
  video_files.write_loop(tmp_path / 'a', video, 10.0)
  video_files.write_png(tmp_path / 'a.png', video[0])
  found, rate = loops.read(tmp_path / 'a.gif')
  assert found.shape[0] == 5 and abs(rate - 10) < 0.01
  found, rate = loops.read(tmp_path / 'a.mp4')
  assert len(found) == 20 and rate == 10  # Repeated to last 2 s.
  found, _ = loops.read(tmp_path / 'a.png')
  np.testing.assert_array_equal(found, video[:1])


def test_webp_plays_at_its_rate():
  video = np.zeros((6, 16, 16, 3), np.uint8)
  video[:, :, :, 0] = 40 * np.arange(6)[:, None, None]
  image = Image.open(io.BytesIO(loops.webp_bytes(video, 7.0)))
  assert (image.format, image.n_frames) == ('WEBP', 6)
  durations, greys = [], []
  for i in range(6):
    image.seek(i)
    greys.append(np.asarray(image.convert('RGB'))[..., 0].mean())
    durations.append(image.info['duration'])
  assert abs(sum(durations) - 6000 / 7) < 2
  np.testing.assert_allclose(greys, 40 * np.arange(6), atol=6)
  still = Image.open(io.BytesIO(loops.webp_bytes(video[:1], 7.0)))
  assert getattr(still, 'n_frames', 1) == 1
  assert loops.shrink(video, 8).shape == (6, 8, 8, 3)
  assert loops.shrink(video, 16) is video


def test_a_slider_shows_its_last_picture():
  data = loops.webp_bytes(np.zeros((1, 4, 4, 3), np.uint8), 1.0)
  text = loops.slider([('step 1', data), ('<b>', data)])
  assert text.count('<img ') == 2 and text.count(' hidden>') == 1
  assert 'alt="&lt;b&gt;"' in text and 'max="1" value="1"' in text
