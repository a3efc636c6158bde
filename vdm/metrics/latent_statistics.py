"""Spectrum and correlations of latents [n h w c], of any scale.

A denoiser learns latents more easily the more they resemble small images, with
their energy at low frequencies and similar neighbours. RGB thumbnails have
about a twentieth of their energy above half the Nyquist frequency and a
correlation of neighbours of 0.9; latents of large published autoencoders a
third and 0.5. (Skorokhodov et al., 2502.14831, study the same spectra.)
"""

from typing import Any

from etils.array_types import FloatArray
import numpy as np

from vdm.metrics import descriptors


def spectrum_share(z: FloatArray['n h w c']) -> float:
  """Returns the share of the energy above half the Nyquist frequency.

  The energy is that of the discrete cosine transform of each frame and channel
  without its constant term. Coefficient (u, v) of h x w latents has the
  frequency sqrt((u / h)^2 + (v / w)^2), relative to Nyquist's. The share of
  latents that do not vary over a frame is 0.
  """
  z = np.asarray(z, np.float64)
  _, h, w, _ = z.shape
  rows, columns = descriptors.cosines(h), descriptors.cosines(w)
  energy = np.einsum('ui,vj,nijc->uvnc', rows, columns, z, optimize=True)
  energy = np.square(energy).sum(axis=(2, 3))
  energy[0, 0] = 0.0
  frequency = np.hypot(*np.meshgrid(np.arange(h) / h, np.arange(w) / w))
  high = energy[frequency.T > 0.5].sum()
  # Rounding errors of constant latents are no spectrum.
  total = energy.sum()
  return float(high / total) if total > 1e-20 * np.square(z).sum() else 0.0


def neighbour_correlation(z: FloatArray['n h w c']) -> float:
  """Returns the correlation of adjacent latents, mean over channels.

  Pairs are horizontal and vertical neighbours. Channels that do not vary are
  left out; if none varies, the correlation is 1.
  """
  z = np.asarray(z, np.float64)
  found = []
  for c in range(z.shape[-1]):
    x = z[..., c]
    first = np.concatenate([x[:, :, :-1].ravel(), x[:, :-1].ravel()])
    second = np.concatenate([x[:, :, 1:].ravel(), x[:, 1:].ravel()])
    if first.size and min(first.std(), second.std()) > 1e-12:
      found.append(np.corrcoef(first, second)[0, 1])
  return float(np.mean(found)) if found else 1.0


def summary(z: FloatArray['n h w c']) -> dict[str, Any]:
  """Returns these statistics, and 'mean' and 'std' [c] of each channel."""
  flat = np.asarray(z, np.float64).reshape(-1, z.shape[-1])
  return {
    'spectrum_share': spectrum_share(z),
    'neighbour_correlation': neighbour_correlation(z),
    'mean': flat.mean(axis=0).tolist(),
    'std': flat.std(axis=0).tolist(),
  }
