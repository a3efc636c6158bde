"""How frames are stored."""

import numpy as np
import pytest

from vdm.data import coding


def test_webp_is_lossless_and_jpeg_keeps_chroma():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (32, 32, 3), np.uint8)
  stored = coding.encode_frame(image, 'webp')
  np.testing.assert_array_equal(coding.decode_frame(stored), image)
  # One-pixel columns of red and blue: halved chroma would mix them.
  stripes = np.zeros((32, 32, 3), np.uint8)
  stripes[:, ::2, 0] = stripes[:, 1::2, 2] = 200
  decoded = coding.decode_frame(coding.encode_frame(stripes, 'jpeg'))
  assert np.abs(decoded.astype(int) - stripes).max() < 30
  with pytest.raises(ValueError, match='Unknown encoding'):
    coding.encode_frame(image, 'png')
  for bad in (b'', b'nonsense'):
    with pytest.raises(ValueError, match='A stored frame'):
      coding.decode_frame(bad)
