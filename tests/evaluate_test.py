"""The card of a run and of folders: what is in it, kept, and resumed."""

import ast
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import types

from conftest import ROOT
import numpy as np
import pytest
import tiny_source

from vdm import generate
from vdm import trained
from vdm.config import schema
from vdm.data import clip_spec
from vdm.data import eval_clips
from vdm.data import windowing
from vdm.evaluation import clip_set
from vdm.evaluation import feature_extraction
from vdm.evaluation import folder_card
from vdm.evaluation import memorisation
from vdm.evaluation import result_cache
from vdm.evaluation import run_card
from vdm.evaluation import run_samples
from vdm.media import video_files
from vdm.metrics import laws
from vdm.metrics import motion
from vdm.metrics import neighbours
from vdm.metrics import suite
from vdm.models import features
from vdm.training import sharding

SETS = ('samples', 'real', 'autoencoder', 'shuffled', 'frozen', 'mixed')


def projection(name='i3d', seed=0):
  """A network of one random projection of the mean frame."""
  matrix = np.random.default_rng(seed).standard_normal((3 * 16 * 16, 12))

  def apply(params, videos):
    x = videos.astype('float32').mean(1).reshape(len(videos), -1)
    return x @ params / 255.0

  protocol = {'network': name, 'weights_sha256': str(seed)}
  return features.Features(
    name=name,
    params=matrix.astype(np.float32),
    apply=apply,
    protocol=protocol,
  )


@pytest.fixture(scope='module')
def workdir(finished_run, tmp_path_factory):
  """A copy of a run, in which evaluation may write."""
  return pathlib.Path(
    shutil.copytree(finished_run, tmp_path_factory.mktemp('run') / 'copy')
  )


@pytest.fixture(scope='module')
def options(tmp_path_factory):
  return run_card.Options(
    num=4,
    training_clips=24,
    network=projection(),
    classifier=projection('classifier', 1),
    statistics=str(tmp_path_factory.mktemp('statistics')),
  )


@pytest.fixture(scope='module')
def card(workdir, options):
  return run_card.evaluate([workdir], workdir / 'evaluation', options)


def test_every_number_has_its_floor_its_ceiling_and_its_protocol(card):
  assert card['counts'] == dict.fromkeys(('reference', *SETS), 4)
  assert tuple(card['energy']) == suite.SUMMARY
  for row in card['energy'].values():
    assert row.keys() == {*SETS, 'chance'}
    assert row['samples']['low'] <= row['samples']['high']
  assert card['panel'].keys() == {'reference', *SETS}
  assert card['panel']['samples'].keys() == motion.PANEL.keys()
  assert card['from_samples'].keys() == {*SETS} - {'samples'}
  assert card['fvd'].keys() == {'samples', 'real', 'autoencoder'}
  assert {'frechet_interval', 'kernel_interval'} <= card['fvd'][
    'samples'
  ].keys()
  assert card['inception'].keys() == {'samples', 'real', 'autoencoder'}
  assert all(1 <= row['score'] <= 12 for row in card['inception'].values())
  for name in ('laws', 'synthetic_truth'):
    assert card[name].keys() == set(SETS)
  assert card['laws']['real']['speed'] > card['laws']['frozen']['speed']
  assert card['memorisation']['clips'] == 24
  assert card['reconstruction']['psnr'] > 10
  protocol = card['protocol']
  # Eight held-out clips: four, and four of other videos.
  assert protocol['reference']['clips'] == [0, 4]
  assert protocol['floor'] == {'split': 'validation', 'clips': [4, 8]}
  assert protocol['features']['covariance'] == 'biased'
  assert protocol['samples']['step'] == 12
  assert protocol['samples']['sample']['guidance'] == 2.0


def test_it_is_written_for_machines_and_for_people(card, workdir):
  out = workdir / 'evaluation'
  assert json.loads((out / 'metrics_card.json').read_text()) == card
  text = (out / 'metrics_card.txt').read_text()
  for words in ('motion', 'flow, px at 128', 'fvd', 'Inception', 'PSNR'):
    assert words.lower() in text.lower(), words
  assert text.startswith('Too few clips for a verdict')
  for name in ('samples.png', 'nearest.png', 'nearest.mp4'):
    assert (out / name).stat().st_size > 1000


def test_what_took_long_is_cached(card, workdir, options, monkeypatch):
  def never(*unused, **also_unused):
    raise AssertionError('measured again')

  monkeypatch.setattr(suite, 'measure', never)
  monkeypatch.setattr(feature_extraction, 'extract', never)
  again = run_card.evaluate([workdir], workdir / 'evaluation', options)
  for name in ('energy', 'panel', 'fvd', 'laws', 'memorisation'):
    assert again[name] == card[name], name


def test_another_protocol_is_measured_anew(card, workdir, options):
  """Samples guided against the run itself, earlier; the rest as it was."""
  changed = run_card.dataclasses.replace(
    options,
    sample={'guidance': 1.5},
    autoguide='9',
    network=None,
    classifier=None,
    training_clips=0,
  )
  out = workdir / 'other'
  found = run_card.evaluate([workdir], out, changed)
  for name in ('fvd', 'inception', 'memorisation'):
    assert name not in found
  assert found['protocol']['samples']['sample']['guidance'] == 1.5
  assert found['protocol']['samples']['autoguide']['step'] == 9
  run = trained.load(workdir)
  run.config.sample.guidance = 1.5
  worse = trained.load_worse(run, '9')
  generator = generate.make_generator(
    run.config,
    run.stage,
    sharding.make_mesh(),
    worse=worse,
  )
  labels = {'label': np.arange(4, dtype=np.int32)}
  videos = generator.samples(run.params, run.frozen, labels, np.arange(4))
  (part,) = (
    arrays['videos']
    for path in (out / result_cache.FOLDER).glob('*.npz')
    for arrays in [np.load(path, allow_pickle=False)]
    if 'videos' in arrays
  )
  np.testing.assert_array_equal(part, videos)
  assert found['energy']['motion']['real'] == card['energy']['motion']['real']
  assert found['energy'] != card['energy']


def test_where_the_reference_is_trained_on_copies_are_not_searched(
  workdir, options
):
  """Its distances to the training clips would all be zero."""
  changed = run_card.dataclasses.replace(
    options, split='train', network=None, classifier=None
  )
  found = run_card.evaluate([workdir], workdir / 'trained', changed)
  assert found['protocol']['reference']['split'] == 'train'
  assert 'memorisation' not in found
  assert found['protocol']['training_clips'] == 0


def test_samples_resume_where_they_stopped(workdir, monkeypatch, tmp_path):
  monkeypatch.setattr(run_samples, 'PART', 8)
  run = trained.load(workdir)
  run.config.sample.update(guidance=1.5)
  generator = generate.make_generator(run.config, run.stage)
  made = []

  def counted(params, frozen, cond, seeds):
    made.extend(seeds)
    return generator.samples(params, frozen, cond, seeds)

  def make(num):
    return run_samples.make(
      run,
      generator._replace(samples=counted),
      run_samples.key(run),
      num,
      folder=tmp_path,
    )

  first, _ = make(8)
  videos, labels = make(16)
  assert made == list(range(16))
  np.testing.assert_array_equal(videos[:8], first)
  assert list(labels) == list(np.arange(16) % 8)


def test_the_runs_last_samples_are_taken_where_they_are_what_is_asked(workdir):
  with np.load(workdir / 'final/samples.npz', allow_pickle=False) as arrays:
    expected = arrays['videos']
  run = trained.load(workdir)
  labels = np.arange(4)
  np.testing.assert_array_equal(
    run_samples.final_videos(run, labels), expected[:4]
  )
  assert run_samples.final_videos(run, labels[::-1]) is None
  assert run_samples.final_videos(run, np.arange(9)) is None
  path = workdir / 'final/samples.npz'
  whole = path.read_bytes()
  path.write_bytes(whole[:4] + b'damaged')
  assert run_samples.final_videos(run, labels) is None
  path.write_bytes(whole)
  run.config.sample.update(steps=3)
  assert run_samples.final_videos(run, labels) is None


@pytest.mark.parametrize('flip', [True, False])
def test_mirrored_copies_are_found_where_training_mirrors(flip, tmp_path):
  """A training clip as it is, and another one that is mirrored."""
  source = tiny_source.Source(tiny_source.LENGTHS)
  spec = clip_spec.ClipSpec(frames=4, stride=1, resolution=tiny_source.SIZE)
  clips = eval_clips.load_clips(source, spec, 6)['video']
  videos = np.stack([clips[1], clips[4][:, :, ::-1]])
  run = trained_with(flip)

  def described(videos):
    small = neighbours.thumbnails(videos)
    return clip_set.ClipSet(None, None, None, small=small)

  found = memorisation.compare(
    run,
    source,
    windowing.find_windows(source, spec),
    videos,
    described(videos),
    described(videos[:1] // 2 + 100),
    num=6,
    out=tmp_path,
  )
  assert found['clips'] == 6 and found['least'] == 0
  # Of two samples, one of them a copy. The other way round, the blue of column
  # c is off by 2 c - 7, whose mean square is 21; the other channels are right.
  other = 2 * found['median']
  if flip:
    assert other == 0
  else:
    assert other == pytest.approx(7**0.5, rel=0.1)
  for name in ('nearest.png', 'nearest.mp4'):
    assert (tmp_path / name).stat().st_size > 0


def trained_with(flip):
  """What `memorisation` reads of a run."""
  config = schema.default()
  config.data.flip = flip
  return types.SimpleNamespace(config=config, frame_rate=25.0)


def write_folder(folder, videos):
  for i, video in enumerate(videos):
    video_files.write_mp4(folder / f'{i:02d}.mp4', video, 25.0, upscale=2)


@pytest.fixture(scope='module')
def moving_clips():
  random = np.random.default_rng(0)
  images = random.integers(0, 256, (10, 24, 24, 3), np.uint8)
  images = images.repeat(4, axis=1).repeat(4, axis=2)
  return np.stack(
    [
      [image[t * 2 : t * 2 + 32, t : t + 32] for t in range(5)]
      for image in images
    ]
  )


def test_folders_of_videos_and_of_arrays(moving_clips, tmp_path):
  write_folder(tmp_path / 'real', moving_clips[:8])
  fake = np.repeat(moving_clips[6:10, :1], 5, axis=1)  # Frozen.
  np.savez(tmp_path / 'fake.npz', videos=fake)
  options = folder_card.Options(num=4, frames=4, resolution=32)
  found = folder_card.evaluate(
    tmp_path / 'real', tmp_path / 'fake.npz', tmp_path / 'out', options
  )
  assert found['counts']['samples'] == found['counts']['real'] == 4
  assert found['panel']['samples']['freeze_rate']['median'] == 1
  energy = found['energy']['panel']
  assert energy['samples']['energy'] > energy['real']['energy']
  assert found['protocol']['frames'] == 4
  assert (tmp_path / 'out/clips.png').exists()
  assert 'fvd' not in found


def test_too_few_real_clips_are_divided(moving_clips, tmp_path):
  write_folder(tmp_path / 'real', moving_clips[:6])
  np.savez(tmp_path / 'fake.npz', videos=moving_clips[:5])
  options = folder_card.Options(num=5, frames=4, resolution=32)
  found = folder_card.evaluate(
    tmp_path / 'real', tmp_path / 'fake.npz', tmp_path / 'out', options
  )
  assert found['counts']['reference'] == 5
  assert found['counts']['floor'] == [3, 3]


def test_divisions_never_split_a_video():
  groups = np.array(list('aabbbccddd'))
  for num in (2, 4, 5, 8):
    reference, others, half = folder_card.divide(groups, num)
    first = half if len(half) else reference
    assert not set(groups[first]) & set(groups[others])
    assert len(first) and len(others)


def test_features_are_named_by_their_weights():
  assert feature_extraction.metric_name(projection('i3d')) == 'fvd'
  named = feature_extraction.metric_name(projection('i3d_imagenet'))
  assert named == 'fvd_i3d_imagenet'
  videos = np.random.default_rng(0).integers(0, 256, (11, 3, 16, 16, 3), 'u1')
  network = projection()
  np.testing.assert_allclose(
    feature_extraction.extract(network, videos, batch=1),
    network.apply(network.params, videos),
    atol=1e-4,
  )


def test_a_set_comes_back_from_its_cache():
  videos = np.random.default_rng(0).integers(0, 256, (3, 4, 32, 32, 3), 'u1')
  clips = clip_set.describe(
    videos, ['a', 'b', 'c'], [0, 1, -1], world=laws.World()
  )
  clips = clips._replace(features=np.ones((3, 2)))
  again = clip_set.unpack(clip_set.pack(clips))
  assert again.truth is None and list(again.groups) == ['a', 'b', 'c']
  np.testing.assert_array_equal(again.features, clips.features)
  for name, value in clips.laws.items():
    np.testing.assert_array_equal(again.laws[name], value)
  part = clip_set.select(clips, [2, 0])
  assert list(part.groups) == ['c', 'a'] and list(part.labels) == [-1, 0]
  np.testing.assert_array_equal(part.small, clips.small[[2, 0]])


@pytest.mark.parametrize('module', [clip_set, suite])
def test_of_another_version_a_set_is_measured_anew(
  module, monkeypatch, tmp_path
):
  videos, calls = np.zeros((2, 3, 16, 16, 3), np.uint8), []

  def read():
    calls.append(1)
    return videos, ['a', 'b'], [0, 1]

  for _ in range(2):
    clip_set.cached(tmp_path, {'clips': 'two'}, read, 'clips')
  assert len(calls) == 1
  monkeypatch.setattr(module, 'VERSION', module.VERSION + 1)
  clip_set.cached(tmp_path, {'clips': 'two'}, read, 'clips')
  assert len(calls) == 2


@pytest.mark.parametrize(
  'arguments, words',
  [
    ((), 'Say what to evaluate, run, folders, autoencoder'),
    (('run',), '--workdir is missing'),
    (('folders', '--real', 'x'), '--fake is missing'),
    (('run', '--workdir', 'nowhere'), 'nowhere holds no run'),
    (('run', '--chain', 'alone'), 'two models or more'),
    (('folders', '--real', 'a', '--fake', 'b', '--nun=3'), '--num'),
    (('run', '--workdir', 'x', '--features', 'clip:x'), 'is not i3d:PATH'),
    (('run', '--workdir', 'x', '--classifier', 'c3d:'), 'is not c3d:PATH'),
  ],
)
def test_mistakes_are_one_line(arguments, words):
  result = subprocess.run(
    [sys.executable, '-m', 'vdm.evaluate', *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 2, result.stderr
  assert words in result.stderr.splitlines()[-1]
  assert 'Traceback' not in result.stderr


NETWORK = """
from absl import flags
from vdm import evaluate
from vdm.models.features import i3d
i3d.load = lambda *args, **settings: (args, settings)
flags.FLAGS(
  ['x', '--features=i3d:a:b.pt', '--resize=tf1', '--epsilon=1e-5'])
print(evaluate._network())
"""


def test_flags_say_how_clips_are_brought_to_the_network():
  result = subprocess.run(
    [sys.executable, '-c', NETWORK],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert ast.literal_eval(result.stdout) == (
    ('a:b.pt', None),
    {'resize': 'tf1', 'crop': 'squash', 'epsilon': 1e-5},
  )


PRINTED = """
from absl import flags
from vdm import evaluate
from vdm.evaluation import card_text
from vdm.evaluation import folder_card
folder_card.evaluate = lambda *unused: {}
card_text.text = lambda card: 'the card'
flags.FLAGS(['x', '--real=a', '--fake=b', '--out=there'])
evaluate._folders()
"""


def test_the_card_and_the_path_of_its_numbers_are_printed():
  result = subprocess.run(
    [sys.executable, '-c', PRINTED],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  path = 'Raw numbers and protocol: there/metrics_card.json.'
  assert result.stdout == f'the card\n{path}\n'


SCRIPT = """
import sys
import jax
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from vdm.evaluation import result_cache
from vdm.evaluation import run_card
found = run_card.evaluate([sys.argv[3]], sys.argv[4], run_card.Options(
  num=4, training_clips=24, sample={'guidance': 1.25}, statistics=sys.argv[4]))
print('no card' if found is None else 'a card')
"""


@pytest.mark.slow
def test_two_processes_make_the_card_of_one(card, workdir, tmp_path):
  """Each samples its share; the first one measures and writes."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  logs = [tmp_path / f'log{i}' for i in range(2)]
  running = []
  for i, log in enumerate(logs):
    arguments = [address, str(i), str(workdir), str(tmp_path / 'out')]
    with log.open('w') as file:
      running.append(
        subprocess.Popen(
          [sys.executable, '-c', SCRIPT, *arguments],
          cwd=ROOT,
          stdout=file,
          stderr=file,
        )
      )
  for process, log in zip(running, logs):
    assert process.wait(900) == 0, log.read_text()
  assert 'a card' in logs[0].read_text()
  assert 'no card' in logs[1].read_text()
  found = json.loads((tmp_path / 'out/metrics_card.json').read_text())
  assert found['counts'] == card['counts']
  assert found['protocol']['devices'].startswith('2 ')
  # Real clips are chosen and measured alike, whatever the processes.
  for name in ('real', 'shuffled', 'frozen', 'mixed'):
    assert found['panel'][name] == card['panel'][name]
  assert found['memorisation']['clips'] == 24
