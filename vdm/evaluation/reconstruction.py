"""How well an autoencoder gives clips back, and what its latents are like.

The ceiling of every later number: a video model cannot be better than its
autoencoder. A run writes this when its autoencoder stage ends, and
`python -m vdm.evaluate autoencoder` for any finished one.
"""

import dataclasses
import json

from absl import logging
from etils import epath
import jax
import jax.numpy as jnp
import numpy as np

from vdm import generate
from vdm.data import clip_spec
from vdm.data import eval_clips
from vdm.media import video_files
from vdm.metrics import frame_metrics
from vdm.metrics import latent_statistics
from vdm.models import autoencoders
from vdm.models.autoencoders import files
from vdm.models.autoencoders import fsq
from vdm.models.autoencoders import pca
from vdm.multihost import arrays

FRAMES = 16  # Of a clip, where the data set has shots that long.
BATCH = 8  # Clips worked on at once.
WORST = 4  # Clips shown side by side with what became of them.
COLUMNS = ('psnr', 'ssim', 'flicker_in', 'flicker_out')
TITLES = ('PSNR, dB', 'SSIM', 'flicker in', 'flicker out')


def report(directory, source, folder, *, num, resolution, stride, mesh=None):
  """Measures a frozen autoencoder and writes what came out.

  Writes `report.json` with every number and how it was made, `table.txt`, and
  the clips with the lowest PSNR beside their reconstructions as
  `worst_XX.mp4`.

  Args:
    directory: of the frozen autoencoder.
    source: `builders.ClipSource` of the clips.
    folder: where to.
    num: of the clips; fewer where there are no more.
    resolution: of the clips, px.
    stride: stored frames from one frame of a clip to the next.
    mesh: devices to split the work over.

  Returns:
    What `report.json` holds.
  """
  settings, params, stats, fingerprint = files.load(directory)
  codec = autoencoders.make_autoencoder(settings)
  clips = choose(source, num, resolution, stride)
  video = clips['video']
  z, reconstruction = reconstruct(codec, params, video, mesh)
  methods = {settings.kind: frame_metrics.compare(reconstruction, video)}
  if 'pca' in params:  # What the linear part alone, of the same size, can do.
    linear = pca.make(settings.factor, settings.channels)
    alone = autoencoders.Autoencoder(codec.factor, codec.channels, *linear)
    _, plain = reconstruct(alone, params['pca'], video, mesh)
    methods['pca alone'] = frame_metrics.compare(plain, video)
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
      'resolution': resolution,
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
        **{k: _number(v[i]) for k, v in methods[settings.kind].items()},
      }
      for i, name in enumerate(names(source, clips))
    ],
  }
  if codec.levels:
    tokens = np.asarray(fsq.to_tokens(jnp.asarray(z), codec.levels))
    content['tokens'] = fsq.usage(tokens, fsq.size(codec.levels))
  if jax.process_index() == 0:
    write(epath.Path(folder), content, video, reconstruction, source, stride)
  return content


def choose(source, num, resolution, stride):
  """The clips of a split: the same every time, spread over its shots."""
  spec = clip_spec.ClipSpec(frames=FRAMES, stride=stride, resolution=resolution)
  try:
    return eval_clips.load_clips(source, spec, num)
  except ValueError as error:
    logging.warning('Single frames are measured, without flicker: %s', error)
    spec = dataclasses.replace(spec, frames=1)
    return eval_clips.load_clips(source, spec, num)


def reconstruct(codec, params, video, mesh=None):
  """Latents and reconstructions of clips, in float32, without noise.

  Args:
    codec: `autoencoders.Autoencoder`.
    params: its parameters.
    video: uint8 [n t h w 3].
    mesh: devices to split the clips over.

  Returns:
    Mean latents [n t' h' w' c] and uint8 [n t h w 3].
  """

  @jax.jit
  def encode(params, video):
    return codec.encode(params, generate.to_float(video))[0]

  @jax.jit
  def decode(params, z):
    return generate.to_uint8(codec.decode(params, z))

  if mesh is not None:
    params = arrays.copies(mesh, params)
  z = generate.batched(lambda x: encode(params, x), (video,), BATCH, mesh)
  return z, generate.batched(lambda z: decode(params, z), (z,), BATCH, mesh)


def names(source, clips):
  """What to call clips: the record and the frame they begin in."""
  place = {row: entry for entry, row in enumerate(source.index['row'].tolist())}
  return [
    f'{source.index["id"][place[row]]}+{start}'
    for row, start in zip(clips['row'].tolist(), clips['start'].tolist())
  ]


def table(content):
  """The report as lines to read."""
  rows = [('', *TITLES)]
  for name, values in content['mean'].items():
    rows.append((name, *(_text(k, values[k]) for k in COLUMNS)))
  lines = [*_lay_out(rows), '']
  latents, protocol = content['latents'], content['protocol']
  lines += [
    f'mean of {protocol["clips"]} clips of {protocol["frames"]} frames of '
    f'{protocol["resolution"]} px, stride {protocol["stride"]}, '
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


def clip_table(content):
  """A line a clip, the worst first."""
  clips = sorted(content['clips'], key=lambda row: row['psnr'] or np.inf)
  rows = [('', *TITLES)]
  rows += [(c['clip'], *(_text(k, c[k]) for k in COLUMNS)) for c in clips]
  return '\n'.join(_lay_out(rows))


def write(folder, content, video, reconstruction, source, stride):
  """Writes a report's files; report.json last."""
  folder.mkdir(parents=True, exist_ok=True)
  psnr = [clip['psnr'] or np.inf for clip in content['clips']]
  frame_rate = source.info['frame_rate'] / stride
  for place, i in enumerate(np.argsort(psnr, kind='stable')[:WORST]):
    difference = video[i].astype(np.int16) - reconstruction[i]
    shown = np.stack(
      [
        video[i],
        reconstruction[i],
        np.clip(128 + 4 * difference, 0, 255).astype(np.uint8),
      ]
    )
    path = folder / f'worst_{place + 1:02d}.mp4'
    video_files.write_mp4(path, video_files.tile(shown, columns=3), frame_rate)
  text = table(content) + '\n\n' + clip_table(content) + '\n'
  (folder / 'table.txt').write_text(text)
  part = folder / 'report.json.part'
  part.write_text(json.dumps(content, indent=2, allow_nan=False) + '\n')
  part.replace(folder / 'report.json')


def _mean(values):
  """Mean of what is defined; None without any."""
  values = values[np.isfinite(values)]
  return float(values.mean()) if len(values) else None


def _number(value):
  """A float, None where it is not finite: JSON has no other."""
  return float(value) if np.isfinite(value) else None


def _text(column, value):
  if value is None:
    return '-'
  return f'{value:.3f}' if column == 'ssim' else f'{value:.2f}'


def _list(values):
  return ' '.join(f'{value:.2f}' for value in values)


def _lay_out(rows):
  widths = [max(map(len, column)) for column in zip(*rows)]
  return [
    '  '.join(
      [first.ljust(widths[0])]
      + [cell.rjust(w) for cell, w in zip(cells, widths[1:])]
    )
    for first, *cells in rows
  ]
