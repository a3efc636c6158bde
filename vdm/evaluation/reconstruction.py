"""Measures how well an autoencoder reconstructs clips, and its latents.

These numbers are the ceiling of a video model, which cannot be better than its
autoencoder. A run writes them when its autoencoder stage ends, and
`python -m vdm.evaluate autoencoder` for a finished run.
"""

from collections.abc import Iterable
import dataclasses
from typing import Any

from absl import logging
from etils import epath
from etils.array_types import FloatArray, ui8
import jax
import jax.numpy as jnp
import numpy as np

from vdm import trained
from vdm.common import files
from vdm.common import sizes
from vdm.common import tables
from vdm.data import builders
from vdm.data import clip_spec
from vdm.data import eval_clips
from vdm.media import video_files
from vdm.metrics import frame_metrics
from vdm.metrics import latent_statistics
from vdm.models import autoencoders
from vdm.models.autoencoders import fsq
from vdm.models.autoencoders import pca
from vdm.multihost import arrays
from vdm.multihost import coordination
from vdm.sampling import batching
from vdm.sampling import coders

FRAMES = 16  # Per clip, if the data set has shots of that length.
BATCH = 8  # Clips in memory at a time.
WORST = 4  # Clips shown beside their reconstructions.
COLUMNS = ('psnr', 'ssim', 'flicker_in', 'flicker_out')
TITLES = ('PSNR, dB', 'SSIM', 'flicker in', 'flicker out')


def report(
  model: epath.PathLike,
  source: builders.ClipSource,
  folder: epath.PathLike,
  *,
  num: int,
  size: sizes.Size,
  stride: int,
  mesh: jax.sharding.Mesh | None = None,
) -> dict[str, Any]:
  """Measures a frozen autoencoder and writes the results.

  Writes `report.json` with every number and its protocol, `table.txt`, and the
  clips with the lowest PSNR beside their reconstructions as `worst_XX.mp4`.

  Args:
    model: run or export whose frozen autoencoder it is, see `trained`.
    source: of the clips.
    folder: where to write.
    num: number of clips, at most.
    size: height and width of the clips, px.
    stride: stored frames from one frame of a clip to the next.
    mesh: devices to split the work over.

  Returns:
    The content of `report.json`.
  """
  settings, params, stats, fingerprint = trained.load_autoencoder(model)
  codec = autoencoders.make_autoencoder(settings)
  clips = choose(source, num, size, stride, codec.factor[0])
  video = clips['video']
  z, reconstruction = reconstruct(codec, params, video, mesh)
  methods = {settings.kind: frame_metrics.compare(reconstruction, video)}
  if 'pca' in params:  # The baseline: the linear part alone, of the same size.
    time, factor, _ = codec.factor
    functions = pca.make(factor, codec.channels, time)
    linear = autoencoders.Autoencoder(codec.factor, codec.channels, *functions)
    _, baseline = reconstruct(linear, params['pca'], video, mesh)
    methods['pca alone'] = frame_metrics.compare(baseline, video)
  latents = latent_statistics.summary(
    z.astype(np.float64).reshape(-1, *z.shape[2:])
  )
  content = {
    'protocol': {
      'autoencoder': fingerprint,
      'dataset': source.info['name'],
      'dataset_fingerprint': source.info['fingerprint'],
      'split': f'{source.split} {source.split_list}',
      'clips': len(video),
      'frames': video.shape[1],
      'stride': stride,
      **sizes.keys(size),
    },
    'settings': settings.to_dict(),
    'mean': {
      name: {k: _mean(v) for k, v in values.items()}
      for name, values in methods.items()
    },
    'latents': latents | {'scale': stats['scale'].tolist()},
    'clips': [
      {
        'clip': name,
        **{k: _mean(v[i : i + 1]) for k, v in methods[settings.kind].items()},
      }
      for i, name in enumerate(names(source, clips))
    ],
  }
  if codec.levels:
    tokens = np.asarray(fsq.to_tokens(jnp.asarray(z), codec.levels))
    content['tokens'] = fsq.usage(tokens, fsq.size(codec.levels))
  if coordination.is_first():
    frame_rate = source.info['frame_rate'] / stride
    _write(epath.Path(folder), content, video, reconstruction, frame_rate)
  return content


def choose(
  source: builders.ClipSource,
  num: int,
  size: sizes.Size,
  stride: int,
  least: int = 1,
) -> dict[str, np.ndarray]:
  """Returns clips spread over the shots of a split, always the same ones.

  Args:
    source: of the clips.
    num: number of clips, at most.
    size: height and width, px.
    stride: stored frames from one frame of a clip to the next.
    least: frames where no shot has FRAMES of them: those of a latent.
  """
  spec = clip_spec.ClipSpec(frames=FRAMES, stride=stride, **sizes.keys(size))
  try:
    return eval_clips.load_clips(source, spec, num)
  except ValueError as error:
    words = 'single frames, without flicker' if least == 1 else 'single latents'
    logging.warning('Measuring %s: %s', words, error)
    spec = dataclasses.replace(spec, frames=least)
    return eval_clips.load_clips(source, spec, num)


def reconstruct(
  codec: autoencoders.Autoencoder,
  params: dict[str, Any],
  video: ui8['n t h w 3'],
  mesh: jax.sharding.Mesh | None = None,
) -> tuple[FloatArray["n t' h' w' c"], ui8['n t h w 3']]:
  """Returns mean latents and reconstructions of clips, in float32.

  Args:
    codec: the autoencoder.
    params: its parameters.
    video: the clips.
    mesh: devices to split the clips over.
  """

  @jax.jit
  def encode(params, video):
    return codec.encode(params, coders.to_float(video))[0]

  @jax.jit
  def decode(params, z):
    return coders.to_uint8(codec.decode(params, z))

  if mesh is not None:
    params = arrays.replicate(mesh, params)
  z = batching.apply(lambda x: encode(params, x), (video,), BATCH, mesh)
  return z, batching.apply(lambda z: decode(params, z), (z,), BATCH, mesh)


def names(
  source: builders.ClipSource, clips: dict[str, np.ndarray]
) -> list[str]:
  """Returns names of clips, the record and the frame that they start at."""
  place = {row: entry for entry, row in enumerate(source.index['row'].tolist())}
  return [
    f'{source.index["id"][place[row]]}+{start}'
    for row, start in zip(clips['row'].tolist(), clips['start'].tolist())
  ]


def table(content: dict[str, Any]) -> str:
  """Formats the content of a report as text."""
  rows = [('', *TITLES)]
  for name, values in content['mean'].items():
    rows.append((name, *(_text(k, values[k]) for k in COLUMNS)))
  lines = [tables.lay_out(rows), '']
  latents, protocol = content['latents'], content['protocol']
  lines += [
    f'mean of {protocol["clips"]} clips of {protocol["frames"]} frames of '
    f'{sizes.text(sizes.of(protocol))} px, stride {protocol["stride"]}, '
    f'{protocol["dataset"]} {protocol["split"]}; flicker of static pixels in '
    'grey levels',
    f'latents: {100 * latents["spectrum_share"]:.1f} % of the energy above '
    f'half Nyquist, neighbours correlated at '
    f'{latents["neighbour_correlation"]:.2f}',
    f'  mean of each channel  {_list(latents["mean"])}',
    f'  deviation             {_list(latents["std"])}',
  ]
  if 'tokens' in content:
    tokens = content['tokens']
    lines.append(
      f'tokens: {100 * tokens["codes_used"]:.1f} % in use, perplexity '
      f'{tokens["perplexity"]:.1f}'
    )
  return '\n'.join(lines)


def _clip_table(content) -> str:
  """Formats the clips of a report as text, the worst first."""
  clips = sorted(content['clips'], key=lambda row: row['psnr'] or np.inf)
  rows = [('', *TITLES)]
  rows += [(c['clip'], *(_text(k, c[k]) for k in COLUMNS)) for c in clips]
  return tables.lay_out(rows)


def _write(folder, content, video, reconstruction, frame_rate) -> None:
  """Writes the files of a report; report.json last."""
  folder.mkdir(parents=True, exist_ok=True)
  psnr = [clip['psnr'] or np.inf for clip in content['clips']]
  for rank, i in enumerate(np.argsort(psnr, kind='stable')[:WORST]):
    difference = video[i].astype(np.int16) - reconstruction[i]
    difference = np.clip(128 + 4 * difference, 0, 255).astype(np.uint8)
    shown = np.stack([video[i], reconstruction[i], difference])
    grid = video_files.tile(
      video_files.enlarge(shown, 2),
      columns=3,
      captions=['original', 'reconstruction', 'difference x 4'],
    )
    video_files.write_loop(folder / f'worst_{rank + 1:02d}', grid, frame_rate)
  text = f'{table(content)}\n\n{_clip_table(content)}\n'
  files.write_text(folder / 'table.txt', text)
  files.write_json(folder / 'report.json', content, allow_nan=False)


def _mean(values: np.ndarray) -> float | None:
  """Returns the mean of the finite values; None of none: JSON has no NaN."""
  values = values[np.isfinite(values)]
  return float(values.mean()) if len(values) else None


def _text(column: str, value: float | None) -> str:
  if value is None:
    return '-'
  return f'{value:.3f}' if column == 'ssim' else f'{value:.2f}'


def _list(values: Iterable[float]) -> str:
  return ' '.join(f'{value:.2f}' for value in values)
