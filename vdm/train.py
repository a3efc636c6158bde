"""Trains the stages of a run, from wherever its folder says it is.

The loop knows stages and objectives and no network. Everything it does is a
function of the step: a run that was stopped, by whatever, and is started
again with the same command goes on with the same numbers.
"""

import math
import signal
import time
import zlib

from absl import logging
from etils import epath
import jax
import jax.numpy as jnp
import numpy as np

from vdm import config_check
from vdm import generate
from vdm import score
from vdm.data import builders
from vdm.data import pipeline
from vdm.media import videos
from vdm.models.autoencoders import files as autoencoder_files
from vdm.models.autoencoders import latents
from vdm.models import autoencoders
from vdm.training import checkpoints
from vdm.training import flops
from vdm.training import meters
from vdm.training import objectives
from vdm.training import optim
from vdm.training import resume
from vdm.training import sharding
from vdm.training import stages
from vdm.training import state as state_lib
from vdm.training import step as step_lib
from vdm.training import writer as writer_lib

STOPPED = 75  # Exit code: run the same command again.


def train(config, workdir):
  """Trains until the last stage is done.

  Args:
    config: the run's, see `vdm.config`.
    workdir: the run's folder; everything it makes lies in there.

  Returns:
    0 where the run is finished, `STOPPED` where a signal ended it early.
  """
  workdir = epath.Path(workdir)
  config_check.validate(config)
  config_check.check_devices(config, jax.device_count(), jax.process_count())
  directory = builders.ensure(config.data)
  sources = {
      split: builders.open_source(directory, split, config.data.split_list)
      for split in ('train', 'validation')
  }
  mesh = sharding.make_mesh(config.train.fsdp)
  signals = StopSignal()

  with (
      checkpoints.Checkpoints(
          workdir / 'checkpoints', keep=config.train.keep
      ) as store,
      writer_lib.Writer(
          workdir, tensorboard=config.train.tensorboard
      ) as writer,
  ):
    newest = store.latest()
    resume.claim(
        config,
        workdir / 'config.json',
        None if newest is None else store.read_meta(newest)['stage'],
        sources['train'].info['label_names'],
    )
    run = Run(config, workdir, sources, mesh, store, writer, signals)
    spans = stages.spans(config)
    step, previous, state = run.restore()
    writer.rewind(step)
    if previous is not None:
      spans = spans[spans.index(previous) :]
      writer.write(step, previous.name, {'resumed_from': step})
      logging.info('resumed_from %d, in stage %s', step, previous.name)

    for span in spans:
      objective = objectives.make_objective(config, span.stage, mesh)
      if previous is None or previous.stage.objective != span.stage.objective:
        state = run.begin(span, objective)
      state, finished = run.run_stage(
          span, objective, state, max(step, span.start), previous
      )
      if not finished:
        logging.info('Stopped early: the same command goes on from here.')
        return STOPPED
      if span.stage.objective == 'autoencoder':
        run.freeze_autoencoder(span, state)
      previous = span
    store.wait()
    run.finish(previous, state)
  return 0


class Run:
  """What the stages of one run share."""

  def __init__(self, config, workdir, sources, mesh, store, writer, signals):
    self.config, self.workdir, self.mesh = config, workdir, mesh
    self.sources, self.store, self.writer = sources, store, writer
    self.signals = signals
    self.total_steps = stages.spans(config)[-1].stop
    self.root = jax.random.key(config.seed)

  # Where a stage begins.

  def stage_key(self, name):
    """The root of a stage's randomness."""
    return jax.random.fold_in(self.root, zlib.crc32(name.encode()))

  def begin(self, span, objective):
    """New parameters, averages and moments for a stage's objective."""
    clips = self.clips('train', span, self.config.autoencoder.statistics_clips)
    params = objective.init(jax.random.fold_in(self.stage_key('init'), 0), clips)
    if self.config.train.init_from and span.stage.objective == 'diffusion':
      params = self.inherit(params)
    create = lambda params: state_lib.create(self.config, params)
    shardings = sharding.tree_sharding(
        self.mesh, jax.eval_shape(create, params)
    )
    return jax.jit(create, out_shardings=shardings)(params)

  def inherit(self, params):
    """Parameters of another run's average, wherever they fit."""
    other = generate.load_run(self.config.train.init_from)
    old, new = optim.flatten(other.params), optim.flatten(params)
    fits = {p for p in new if p in old and old[p].shape == new[p].shape}
    for title, paths in {
        'inherited': fits,
        'new': new.keys() - old.keys(),
        'of another shape, so new': (new.keys() & old.keys()) - fits,
        'left behind': old.keys() - new.keys(),
    }.items():
      logging.info('%d parameters %s: %s', len(paths), title, sorted(paths))
    return optim.unflatten(
        {p: jnp.asarray(old[p]) if p in fits else new[p] for p in new}, params
    )

  def restore(self):
    """(step, span, state) of the newest sound checkpoint; (0, None, None)."""
    while (step := self.store.latest()) is not None:
      meta = self.store.read_meta(step)
      self.check_data(meta)
      span = resume.span_of(self.config, step, meta['stage'])
      objective = objectives.make_objective(
          self.config, span.stage, self.mesh
      )
      like = jax.eval_shape(lambda: state_lib.create(
          self.config, objective.abstract_params()
      ))
      abstract = sharding.abstract(
          like, sharding.tree_sharding(self.mesh, like)
      )
      try:
        _, items, _ = self.store.restore(abstract._asdict(), step)
      except checkpoints.CheckpointError:
        continue  # Named in the log; `latest` passes it over from now on.
      return step, span, state_lib.TrainState(**items)
    if self.store.steps():
      raise checkpoints.CheckpointError(
          f'Every checkpoint in {self.store.directory} is damaged: bring one '
          'back from a copy, or start again in another --workdir.'
      )
    return 0, None, None

  def check_data(self, meta):
    """Refuses to go on with a data set other than the run's."""
    now = self.sources['train'].info['fingerprint']
    if meta['dataset'] != now:
      raise resume.ResumeError(
          f'The run was trained on data set {meta["dataset"][:12]}, and '
          f'{self.sources["train"].directory} is {now[:12]}: give another '
          '--workdir, or bring the data back.'
      )

  # The loop.

  def run_stage(self, span, objective, state, step, previous):
    """Trains one stage from global step `step`; returns (state, finished)."""
    stage, config = span.stage, self.config
    frozen = self.frozen_autoencoder(stage)
    key = jax.device_put(
        self.stage_key(span.name), sharding.replicated(self.mesh)
    )
    trained = {
        single: stages.trained_paths(
            state.params, stage, objective.held(single or stage.frames == 1)
        )
        for single in (False, True)
    }
    for line in stages.describe(span, previous, state.params, trained[False]):
      logging.info('%s', line)
    if step == span.stop:
      return state, True
    held_out = self.clips('validation', span, config.train.eval_clips)
    steps, meter, extra = {}, None, {}
    saved_at, pending = time.monotonic(), None

    with pipeline.make_batches(
        self.sources['train'],
        frames=stage.frames,
        stride=config.data.stride,
        resolution=stage.resolution,
        batch=stage.batch,
        seed=config.seed,
        stage=span.name,
        start=step - span.start,
        stop=stage.steps,
        flip=config.data.flip,
        num_classes=config.model.num_classes,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=config.data.threads,
        workers=config.data.workers,
        max_bad=config.data.max_bad_records,
    ) as batches:
      while step < span.stop:
        n = step - span.start
        single = stages.on_single_frames(stage, n)
        fetch = lambda: self.to_device(next(batches), single)
        batch = meter.wait(fetch) if meter else fetch()
        where = jax.device_put(jnp.int32(n), sharding.replicated(self.mesh))
        if single not in steps:
          steps[single], cost = self.compile(
              span, objective, trained[single], state,
              (frozen, batch, where, key),
          )
          extra |= cost
          meter = meter or meters.Meter(
              stage.batch, cost['tflops_per_step'] * 1e12,
              config.train.compute_dtype,
          )
        state, metrics = steps[single](state, frozen, batch, where, key)
        step += 1
        n += 1
        meter.steps += 1
        # The row of the last logged step is read once this step is running.
        if pending:
          self.log(*pending)
          pending = None
        last = step == span.stop
        due = lambda every: last or n % every == 0
        if n == 1 or due(config.train.log_every):
          extra['bad_records'] = batches.bad_records
          pending = (span, n, step, metrics, meter, extra)
          extra = {}
        stop = self.signals.received()
        evaluate = due(config.train.eval_every)
        preview = due(config.train.preview_every)
        save = stop or due(config.train.save_every) or (
            jax.process_count() == 1
            and time.monotonic() - saved_at > 60 * config.train.save_minutes
        )
        if pending and (evaluate or preview or save):
          self.log(*pending)
          pending = None
        if evaluate:
          params = state_lib.averaged(state, config.optim.ema[-1])
          values = objective.validate(params, frozen, held_out)
          self.writer.write(step, span.name, values)
          logging.info('%s %d: %s', span.name, n, summary(values))
        if preview:
          params = state_lib.averaged(state, config.sample.ema)
          self.write_preview(
              step, objective.preview(params, frozen, held_out)
          )
        self.store.check()
        if save:
          self.save(span, step, state)
          saved_at = time.monotonic()
        if evaluate or preview or save:
          meter.restart()
        if stop and not last:
          self.store.wait()
          return state, False
    return state, True

  def compile(self, span, objective, trained, state, arguments):
    """The compiled step for one shape of batch, and what it costs."""
    began = time.perf_counter()
    train_step = step_lib.make_train_step(
        self.config, span.stage, objective, trained, self.mesh, state
    )
    operations = flops.count_flops(train_step, state, *arguments)
    compiled = train_step.lower(state, *arguments).compile()
    seconds = time.perf_counter() - began
    logging.info(
        'Compiled a step of %s in %.1f s: %.4g TFLOP over the batch.',
        span.name, seconds, operations / 1e12,
    )
    return compiled, {
        'compile_seconds': seconds,
        'tflops_per_step': operations / 1e12,
    }

  def to_device(self, batch, single):
    """A global batch on the mesh; clips as single frames if asked."""
    if single:
      frames = batch['video'].shape[1]
      batch = {
          'video': batch['video'].reshape(-1, 1, *batch['video'].shape[2:]),
          'label': np.repeat(batch['label'], frames),
      }
    return sharding.to_global(self.mesh, batch)

  def log(self, span, n, step, metrics, meter, extra):
    """Writes a row and the progress line; waits for the step's numbers."""
    values = {}
    for name, value in sharding.to_host(metrics).items():
      if isinstance(value, tuple):
        if value[1] > 0:  # A noise level without a clip has no loss.
          values[name] = float(value[0] / value[1])
      else:
        values[name] = float(value)
    if not math.isfinite(values['loss']):
      raise FloatingPointError(
          f'The loss is {values["loss"]} at step {step}: lower '
          f'stages.{span.name}.learning_rate, or train in float32 '
          '(train.compute_dtype); the last checkpoint is sound.'
      )
    rates = meter.read()
    self.writer.write(step, span.name, {**values, **rates, **extra})
    logging.info(
        '%s',
        meters.progress(
            span, n, values, rates['seconds_per_step'], self.total_steps - step
        ),
    )

  def save(self, span, step, state):
    """Begins to write a checkpoint; the next check says if it failed."""
    self.writer.flush()
    meta = {
        'stage': span.name,
        'objective': span.stage.objective,
        'dataset': self.sources['train'].info['fingerprint'],
    }
    self.store.save(step, state._asdict(), meta)

  # Clips, the autoencoder, and what a person looks at.

  def clips(self, split, span, num):
    """The same clips of a split every time, of a stage's shape."""
    return pipeline.fixed_clips(
        self.sources[split],
        num=num,
        frames=span.stage.frames,
        stride=self.config.data.stride,
        resolution=span.stage.resolution,
        max_bad=self.config.data.max_bad_records,
    )

  def frozen_autoencoder(self, stage):
    """The autoencoder a diffusion stage works in; nothing for its own."""
    if stage.objective == 'autoencoder':
      return {}
    directory = self.workdir / 'autoencoder'
    if not autoencoder_files.exists(directory):
      self.adopt_autoencoder(stage)
    _, params, stats, fingerprint = autoencoder_files.load(directory)
    logging.info('Autoencoder %s, %s', directory, fingerprint[:12])
    return jax.device_put(
        {'params': params, 'stats': stats}, sharding.replicated(self.mesh)
    )

  def adopt_autoencoder(self, stage):
    """Writes an autoencoder that no stage of this run trains."""
    config = self.config.autoencoder
    directory = self.workdir / 'autoencoder'
    if config.load:
      settings, params, stats, _ = autoencoder_files.load(
          epath.Path(config.load) / 'autoencoder'
      )
      autoencoder_files.save(directory, settings, params, stats)
      return
    clips = pipeline.fixed_clips(
        self.sources['train'],
        num=config.statistics_clips,
        frames=stage.frames,
        stride=self.config.data.stride,
        resolution=stage.resolution,
    )
    codec = autoencoders.make_autoencoder(config)
    params = codec.init(self.root, generate.to_float(clips['video']))
    self.write_autoencoder(codec, params, clips)

  def freeze_autoencoder(self, span, state):
    """Writes the averaged autoencoder with its latents' statistics, once."""
    if autoencoder_files.exists(self.workdir / 'autoencoder'):
      return
    params = state_lib.averaged(state, self.config.optim.ema[0])
    codec = autoencoders.make_autoencoder(self.config.autoencoder)
    clips = self.clips('train', span, self.config.autoencoder.statistics_clips)
    self.write_autoencoder(codec, sharding.to_host(params), clips)

  def write_autoencoder(self, codec, params, clips):
    """Measures the latents and writes the frozen autoencoder."""
    encode = jax.jit(
        lambda params, video: codec.encode(params, generate.to_float(video))[0]
    )
    means = (
        encode(params, clips['video'][i : i + 8])
        for i in range(0, len(clips['video']), 8)
    )
    stats = latents.statistics(map(np.asarray, means), self.config.autoencoder.scale)
    if jax.process_index() == 0:
      autoencoder_files.save(
          self.workdir / 'autoencoder', self.config.autoencoder, params, stats
      )
    if jax.process_count() > 1:
      jax.experimental.multihost_utils.sync_global_devices('autoencoder')

  def write_preview(self, step, preview):
    """Sample videos of one step: mp4, contact sheet, TensorBoard."""
    if jax.process_index():
      return
    folder = self.workdir / 'samples' / f'step_{step:08d}'
    rate = self.frame_rate()
    rows = np.concatenate(list(preview.values()))
    names = [
        f'{name} {i}' for name, clips in preview.items() for i in range(len(clips))
    ]
    videos.write_png(
        folder / 'sheet.png', videos.contact_sheet(rows, names, upscale=2)
    )
    grid = videos.tile(rows)
    if grid.shape[0] > 1:
      videos.write_mp4(folder / 'grid.mp4', grid, rate, upscale=2)
    self.writer.write_gifs(step, {'samples': videos.gif_bytes(grid, rate)})

  def frame_rate(self):
    """Frames a second of the clips that the network sees."""
    return self.sources['train'].info['frame_rate'] / self.config.data.stride

  def finish(self, span, state):
    """Makes the run's last videos and scores them, once."""
    if span.stage.objective != 'diffusion':
      logging.info('Finished: the autoencoder is in %s.', self.workdir)
      return
    folder = self.workdir / 'final'
    if (folder / f'step_{span.stop:08d}').exists():
      logging.info('Finished before: the videos are in %s.', folder)
      return
    score.final(
        self.config,
        span.stage,
        state_lib.averaged(state, self.config.sample.ema),
        self.frozen_autoencoder(span.stage),
        self.sources['validation'],
        self.mesh,
        folder,
        span.stop,
    )


def summary(values):
  """Numbers in one line."""
  return '  '.join(f'{name} {value:.4g}' for name, value in values.items())


class StopSignal:
  """Remembers SIGTERM and SIGINT; a second one ends the process at once."""

  def __init__(self):
    self._received = False
    for number in (signal.SIGTERM, signal.SIGINT):
      signal.signal(number, self._handle)

  def _handle(self, number, frame):
    del frame
    logging.warning('Signal %d: saving, then stopping; again: at once.', number)
    self._received = True
    signal.signal(number, signal.SIG_DFL)

  def received(self):
    """Whether to save and stop after this step."""
    return self._received
