"""The page holds what it is given, harms nobody and fetches nothing."""

import base64
import html.parser
import io
import re

import numpy as np
from PIL import Image
import pytest

from vdm.media import page
from vdm.media import video_files


class Checker(html.parser.HTMLParser):
  """Checks that tags nest, and gathers attributes and text."""

  def __init__(self, text):
    super().__init__()
    self.open, self.attributes, self.words = [], [], []
    self.feed(text)
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.attributes += attrs
    if tag not in ('meta', 'img'):
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.attributes += attrs

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.words.append(data)


def test_a_page_is_whole_and_fetches_nothing():
  image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
  evil = '<script>alert("x")</script>&'
  parts = [
    page.heading(evil),
    page.paragraph(evil),
    page.table([(evil, 1234, True), ('a', 0.5, '')], ('x', 'y', evil)),
    page.picture(video_files.png_bytes(image), evil),
    page.histogram({evil: [1, 2, 3], 'b': [2.0]}, evil),
  ]
  text = page.page(evil, parts)
  checked = Checker(text)
  assert '<script' not in text
  assert ''.join(checked.words).count(evil) == 9
  assert '1,234' in text
  for name, value in checked.attributes:
    assert name not in ('href', 'srcset', 'onload')
    if name == 'src':
      kind, data = value.split(',', 1)
      assert kind == 'data:image/png;base64'
      stored = Image.open(io.BytesIO(base64.b64decode(data)))
      np.testing.assert_array_equal(np.asarray(stored), image)
  assert not re.search(r'https?:|url\(|@import', text)


@pytest.mark.parametrize('logarithmic', [False, True])
def test_histograms_count_everything_once(logarithmic):
  rng = np.random.default_rng(0)
  groups = {
    'kept': list(rng.lognormal(size=300)),
    'out': [0.0, -1.0, np.nan, np.inf, 4.0],
  }
  svg = page.histogram(groups, 'x', logarithmic=logarithmic)
  counts = [int(n) for n in re.findall(r'<title>(\d+)</title>', svg)]
  assert sum(counts) == 303
  heights = [float(h) for h in re.findall(r' height="([\d.]+)"', svg)]
  # Bars are as tall as their counts; rounding to a tenth of a pixel.
  top = max(int(n) for n in re.findall(r'<text x="0" y="16">(\d+)', svg))
  for count, height in zip(counts, heights):
    assert abs(height - 120 * count / top) < 0.06


def test_histograms_of_little():
  assert page.histogram({'a': [], 'b': [np.nan]}, 'x') == ''
  assert '<title>5</title>' in page.histogram({'a': [3.0] * 5}, 'x')
  zeros = page.histogram({'a': [0.0] * 5}, 'x', logarithmic=True)
  assert '<title>5</title>' in zeros


def test_axes_say_the_values():
  svg = page.histogram({'a': [0.0, 720.0]}, 'x')
  labels = re.findall(r'text-anchor="middle">([^<]*)<', svg)
  assert labels == ['0', '180', '360', '540', '720']
  svg = page.histogram({'a': [0.001, 10.0]}, 'x', logarithmic=True)
  labels = re.findall(r'text-anchor="middle">([^<]*)<', svg)
  assert labels == ['1e-03', '0.01', '0.1', '1', '10']
