"""What may change when a run resumes, and what refuses to."""

from etils import epath
import pytest

from vdm.config import schema
from vdm.config import serialize
from vdm.training import resume


def make_config():
  config = schema.default()
  config.stages.codec = schema.stage(objective='autoencoder', steps=7)
  config.stages.image = schema.stage(steps=4)
  config.stages.video = schema.stage(steps=5, frames=16)
  config.train.order = ('codec', 'image', 'video')
  return config


@pytest.fixture
def folder(tmp_path):
  """Of a run with a checkpoint, in the stage 'image'."""
  folder = epath.Path(tmp_path)
  (folder / 'checkpoints' / '8').mkdir(parents=True)
  serialize.save(make_config(), folder / 'config.json')
  return folder


# Of a run whose newest checkpoint is in 'image'.
MAY = {
  'train.log_every': 3,
  'train.eval_every': 3,
  'train.eval_clips': 3,
  'train.preview_every': 3,
  'train.save_every': 3,
  'train.save_minutes': 3.0,
  'train.keep': 5,
  'train.keep_every': 5,
  'train.max_skipped': 5,
  'train.peer_seconds': 5.0,
  'train.barrier_minutes': 5.0,
  'train.fsdp': 2,
  'train.tensorboard': False,
  'sample.guidance': 1.5,
  'sample.num': 3,
  'consistency.steps': 2,
  'data.threads': 8,
  'data.workers': 2,
  'data.root': 'elsewhere',
  'data.follow_links': True,
  'autoencoder.weights': 'elsewhere',
  'model.remat': 'block',
  'stages.image.accumulate': 2,
  'stages.image.steps': 40,
  'stages.video.steps': 50,
  'stages.video.batch': 2,
  'stages.video.learning_rate': 1e-4,
  'stages.video.frozen': ('stem',),
  'stages.video.frame_levels.context': 0.5,
}
MAY_NOT = {
  'seed': 1,
  'model.widths': (8, 16),
  'model.dropout': 0.1,
  'data.name': 'ucf101',
  'data.stride': 2,
  'data.flip': True,
  'data.scenes.train': 17,
  'autoencoder.channels': 4,
  'autoencoder.weights_sha256': '0' * 64,
  'diffusion.weighting': 'x0',
  'consistency.times': 3,
  'optim.name': 'muon',
  'optim.ema': (0.10,),
  'train.compute_dtype': 'bfloat16',
  'train.init_from': 'another',
  'stages.codec.steps': 8,
  'stages.codec.batch': 16,
  'stages.image.batch': 16,
  'stages.image.learning_rate': 1e-4,
  'stages.image.warmup': 1,
}


def changed(key, value):
  config = make_config()
  config.update_from_flattened_dict({key: value})
  return config


@pytest.mark.parametrize('key', MAY)
def test_what_may_change(key):
  new = changed(key, MAY[key])
  assert [d.split(':')[0] for d in serialize.diff(make_config(), new)] == [key]
  assert resume.may_change(key, make_config(), new, 'image')


@pytest.mark.parametrize('key', MAY_NOT)
def test_what_may_not(key):
  new = changed(key, MAY_NOT[key])
  assert [d.split(':')[0] for d in serialize.diff(make_config(), new)] == [key]
  assert not resume.may_change(key, make_config(), new, 'image')


@pytest.mark.parametrize(
  'order, allowed',
  [
    (('codec', 'image'), True),  # A stage not begun is left out,
    (('codec', 'image', 'extra', 'video'), True),  # or put in between.
    (('codec', 'video', 'image'), False),
    (('image', 'video'), False),
    (('codec', 'video'), False),  # The stage the run is in has gone.
  ],
)
def test_the_order_may_change_after_the_stage_the_run_is_in(
  order, allowed, folder
):
  new = make_config()
  new.stages.extra = schema.stage(steps=3)
  new.train.order = order
  if allowed:
    resume.check(new, folder, 'image')
    return
  with pytest.raises(resume.ResumeError, match='train.order: '):
    resume.check(new, folder, 'image')


def test_an_order_without_the_runs_stage_can_be_put_right(folder):
  """As earlier versions wrote it before they refused it."""
  old = make_config()
  old.train.order = ('codec', 'video')
  serialize.save(old, folder / 'config.json')
  with pytest.raises(resume.ResumeError, match='train.order: '):
    resume.check(make_config(), folder, 'image')
  resume.check(make_config(), folder, 'image', accept=True)


def test_a_run_of_an_earlier_version_resumes_with_the_defaults(folder):
  path = folder / 'config.json'
  old = make_config()
  del old.autoencoder['kl_weight']
  del old.stages.image['cooldown']
  del old['score']
  serialize.save(old, path)
  resume.check(make_config(), folder, 'image')
  resume.claim(make_config(), folder, [])
  assert not serialize.diff(serialize.load(path), make_config())

  serialize.save(old, path)
  new = changed('autoencoder.kl_weight', 0.5)
  with pytest.raises(resume.ResumeError, match='kl_weight: 0.001 -> 0.5'):
    resume.check(new, folder, 'image')


def test_a_new_run_writes_its_configuration(tmp_path):
  folder = epath.Path(tmp_path)
  resume.claim(make_config(), folder, ['left', 'right'])
  path = folder / 'config.json'
  assert serialize.config_hash(serialize.load(path)) == serialize.config_hash(
    make_config()
  )
  assert serialize.load_label_names(path) == ['left', 'right']
  # Nothing has been saved yet: anything may still change.
  resume.check(changed('seed', 1), folder, 'image')


def test_a_refusal_names_every_difference(folder, caplog):
  path = folder / 'config.json'
  before = path.read_text()
  new = changed('seed', 1)
  new.stages.codec.batch = 16
  new.train.log_every = 3
  with pytest.raises(resume.ResumeError) as error:
    resume.check(new, folder, 'image')
  assert 'seed: 0 -> 1' in str(error.value)
  assert 'stages.codec.batch: 8 -> 16' in str(error.value)
  assert 'log_every' not in str(error.value)
  assert path.read_text() == before
  with caplog.at_level('INFO', logger='absl'):
    resume.check(new, folder, 'image', accept=True)
  assert 'Changed on resume: seed: 0 -> 1' in caplog.text
  with caplog.at_level('INFO', logger='absl'):
    resume.check(changed('train.log_every', 3), folder, 'image')
  assert 'train.log_every: 10 -> 3' in caplog.text
  assert path.read_text() == before


def test_the_checkpoint_must_lie_in_its_stage():
  config = make_config()  # image: 7 to 11.
  assert resume.span_of(config, 8, 'image').start == 7
  assert resume.span_of(config, 11, 'image').name == 'image'
  with pytest.raises(resume.ResumeError, match='give it at least 5 steps'):
    resume.span_of(config, 12, 'image')
  with pytest.raises(resume.ResumeError, match="'motion', which train.order"):
    resume.span_of(config, 8, 'motion')


def test_other_data_are_refused(caplog):
  resume.check_data('a' * 64, 'a' * 64)
  with pytest.raises(resume.ResumeError, match='aaaaaaaaaaaa and is now given'):
    resume.check_data('a' * 64, 'b' * 64)
  resume.check_data('a' * 64, 'b' * 64, accept=True)
  assert 'is now given bbbbbbbbbbbb' in caplog.text
