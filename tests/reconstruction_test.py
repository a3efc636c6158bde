"""What a report says of autoencoders whose answer is known."""

import json
import subprocess
import sys

import av
from conftest import ROOT
import jax
import numpy as np
import pytest
import tiny_config

from vdm.config import schema
from vdm.data import builders
from vdm.evaluation import reconstruction
from vdm.metrics import frame_metrics
from vdm.models import autoencoders
from vdm.models.autoencoders import files
from vdm.preparation import datasets
from vdm.sampling import coders


@pytest.fixture(scope='module')
def source(data_root):
  config = tiny_config.make_config(data_root)
  return builders.open_source(datasets.ensure(config.data), 'validation')


@pytest.fixture(autouse=True)
def short_clips(monkeypatch):
  monkeypatch.setattr(reconstruction, 'FRAMES', 4)


def freeze(folder, source, **settings):
  """A new autoencoder in a folder, as a run freezes it."""
  config = schema.default().autoencoder
  config.update(
    factor=4, channels=4, encoder_width=4, decoder_width=4, decoder_blocks=1
  )
  config.update(settings)
  codec = autoencoders.make_autoencoder(config)
  clips = reconstruction.choose(source, 4, (16, 16), 1)['video']
  params = codec.init(jax.random.key(0), coders.to_float(clips))
  stats = {k: np.ones(codec.channels, np.float32) for k in ('mean', 'scale')}
  files.save(folder / 'autoencoder', config, params, stats)
  return folder


def report(folder, source, **settings):
  return reconstruction.report(
    freeze(folder, source, **settings),
    source,
    folder / 'out',
    num=5,
    size=(16, 16),
    stride=1,
  )


def test_pixels_come_back_as_they_were(source, tmp_path):
  content = report(tmp_path, source, kind='identity')
  values = content['mean']['identity']
  assert values['psnr'] is None  # It is infinite.
  np.testing.assert_allclose(values['ssim'], 1.0)
  assert values['flicker_in'] == values['flicker_out']
  assert content['protocol']['clips'] == 5
  assert content['protocol']['frames'] == 4
  # The latents are the pixels in [-1, 1].
  clips = reconstruction.choose(source, 5, (16, 16), 1)['video']
  flat = clips.reshape(-1, 3) / 127.5 - 1.0
  np.testing.assert_allclose(
    content['latents']['mean'], flat.mean(0), atol=1e-5
  )
  np.testing.assert_allclose(content['latents']['std'], flat.std(0), atol=1e-5)
  assert ' - ' in reconstruction.table(content)


def test_an_untrained_one_is_its_linear_part(source, tmp_path):
  content = report(tmp_path, source)
  rows = content['mean']
  assert set(rows) == {'kl', 'pca alone'}
  for name, value in rows['kl'].items():
    np.testing.assert_allclose(rows['pca alone'][name], value, rtol=1e-4)
  # The files say the same, and the numbers are those of the clips' metrics.
  out = tmp_path / 'out'
  assert (out / 'report.json').read_text() == json.dumps(
    content, indent=2
  ) + '\n'
  psnr = [row['psnr'] for row in content['clips']]
  np.testing.assert_allclose(np.mean(psnr), rows['kl']['psnr'])
  assert all(
    row['clip'].rpartition('+')[0] in source.index['id']
    for row in content['clips']
  )
  text = (out / 'table.txt').read_text()
  assert f'{rows["kl"]["psnr"]:.2f}' in text and 'half Nyquist' in text
  # The worst comes first, in the table and to look at.
  worst = content['clips'][int(np.argmin(psnr))]['clip']
  lines = text[text.index('half Nyquist') :].splitlines()
  assert next(x for x in lines if '+' in x).startswith(worst)
  with av.open(str(out / 'worst_01.mp4')) as container:
    shown = [f.to_ndarray(format='rgb24') for f in container.decode(video=0)]
  assert len(shown) == 52  # Four frames, played for 2 s at 25 per second.
  assert shown[0].shape[1] > 3 * 16  # Clip, reconstruction and difference.


def test_numbers_are_those_of_the_reconstruction(source, tmp_path):
  folder = freeze(tmp_path, source, kind='pca')
  settings, params, _, _ = files.load(folder / 'autoencoder')
  codec = autoencoders.make_autoencoder(settings)
  clips = reconstruction.choose(source, 5, (16, 16), 1)['video']
  _, shown = reconstruction.reconstruct(codec, params, clips)
  # By hand, a clip at a time.
  z, _ = codec.encode(params, clips[:1] / np.float32(127.5) - 1)
  x = np.clip(np.asarray(codec.decode(params, z)), -1, 1)
  wanted = np.rint((x + 1) * 127.5)
  assert np.abs(shown[:1] - wanted).max() <= 1  # Rounded either way.
  content = report(tmp_path, source, kind='pca')
  wanted = frame_metrics.compare(shown, clips)
  for name in ('psnr', 'ssim', 'flicker_out'):
    found = [row[name] for row in content['clips']]
    np.testing.assert_allclose(found, wanted[name])


def test_tokens_are_counted(source, tmp_path):
  content = report(tmp_path, source, bottleneck='fsq', levels=(4, 3, 3, 2))
  tokens = content['tokens']
  assert 0 < tokens['codes_used'] <= 1
  # No more in use than there are, and perplexity no higher than that.
  assert 1 <= tokens['perplexity'] <= 72 * tokens['codes_used'] + 1e-6
  assert 'perplexity' in reconstruction.table(content)


def test_latents_of_several_frames_have_their_baseline(source, tmp_path):
  content = report(tmp_path, source, time_factor=2)
  psnr = {name: means['psnr'] for name, means in content['mean'].items()}
  # An untrained branch adds nothing to the components.
  np.testing.assert_allclose(psnr['kl'], psnr['pca alone'], rtol=1e-3)


def test_single_frames_where_shots_are_short(source, tmp_path, monkeypatch):
  monkeypatch.setattr(reconstruction, 'FRAMES', 16)
  content = report(tmp_path, source, kind='identity')
  assert content['protocol']['frames'] == 1
  assert content['mean']['identity']['flicker_in'] is None


def evaluate(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'vdm.evaluate', *map(str, arguments)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )


def test_the_command(finished_run, tmp_path):
  result = evaluate(
    'autoencoder', '--workdir', finished_run, '--num', 3, '--out', tmp_path
  )
  assert result.returncode == 0, result.stderr
  assert 'PSNR, dB' in result.stdout and 'pca alone' in result.stdout
  content = json.loads((tmp_path / 'report.json').read_text())
  assert content['protocol']['clips'] == 3
  # The run itself has measured it, too, on all of its held-out clips.
  own = json.loads((finished_run / 'autoencoder/report.json').read_text())
  assert own['protocol']['autoencoder'] == content['protocol']['autoencoder']
  assert own['protocol']['clips'] == 4


@pytest.mark.parametrize(
  'arguments, code, sentence',
  [
    ((), 2, 'Say what to evaluate'),
    (('autoencoder',), 2, '--workdir is missing'),
    (('autoencoder', '--workdir', '/nowhere'), 2, 'holds no run'),
  ],
)
def test_mistakes_are_one_line(arguments, code, sentence):
  result = evaluate(*arguments)
  assert result.returncode == code
  assert sentence in result.stderr.splitlines()[-1]
