"""Faults for `ailments`: each is a change of code or data, for one process.

A fault is a function of its dose that replaces functions of the package, so
that config.json of the run says nothing of it. What a fault does to data is
done where scenes are rendered: its runs need a data root of their own.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple


class Fault(NamedTuple):
  """A fault.

  Attributes:
    plant: dose -> None.
    finding: the name under which `vdm.diagnose` has to list it first.
    dose: of the fault.
    mild: a smaller dose.
    data: whether it is in the data.
    meaning: of the dose, to be formatted with it.
  """

  plant: Callable[[Any], None]
  finding: str
  dose: Any
  mild: Any
  meaning: str
  data: bool = False

  def amount(self, dose):
    """What is planted for 'full' or 'mild'."""
    return self.mild if dose == 'mild' else self.dose


def scale_latents(dose):
  """Latents are normalised with statistics of other weights."""
  from vdm.training import autoencoder_stage

  save = autoencoder_stage.files.save

  def planted(directory, options, params, stats):
    stats = {**stats, 'scale': stats['scale'] / dose}
    return save(directory, options, params, stats)

  autoencoder_stage.files.save = planted


def spoil_autoencoder(dose):
  """Parameters of the autoencoder are off by a share of themselves."""
  import jax
  import numpy as np

  from vdm import trained

  load = trained.load_autoencoder
  # How much larger its latents are then, as it was measured: their scale is
  # not what is wrong.
  growth = {0.15: 1.47, 0.1: 1.28}[dose]

  def planted(source):
    settings, params, stats, fingerprint = load(source)
    random = np.random.default_rng(0)

    def spoilt(x):
      factor = 1 + dose * random.normal(size=x.shape)
      return np.asarray(x * factor, x.dtype)

    stats = {**stats, 'scale': stats['scale'] * growth}
    return settings, jax.tree.map(spoilt, params), stats, fingerprint

  trained.load_autoencoder = planted


def freeze_time(dose):
  """Temporal branches are trained at a share of the rate, or not at all."""
  from vdm.models import unet
  from vdm.training import stages

  if dose:
    stages.rates = lambda params, stage: {
      path: dose
      for path in stages.trained_paths(params, stage, ())
      if unet.TEMPORAL in path
    }
    return
  trained_paths = stages.trained_paths

  def planted(params, stage, excluded):
    return trained_paths(params, stage, (*excluded, unet.TEMPORAL))

  stages.trained_paths = planted


def scale_rates(dose):
  """All learning rates are `dose` times what the configuration says."""
  from vdm.training import optim

  rate = optim.learning_rate
  optim.learning_rate = lambda stage, n: dose * rate(stage, n)


def widen_average(dose):
  """The average has another width than its name says."""
  from vdm.training import train_step

  gamma = train_step.power_averages.gamma

  class Planted:
    gamma = staticmethod(lambda width: gamma(dose))

  train_step.power_averages = Planted


def round_parameters(dose):
  """After every update some parameters are rounded to bfloat16.

  Args:
    dose: 'all' that a step updates, or 'hidden kernels': those that Muon
      updates, which a step holds one by one. Other kernels share an array with
      parameters that are none, see `packing`.
  """
  import jax
  import jax.numpy as jnp

  from vdm.training import optim

  update = optim.update

  def planted(*args):
    params, slots = update(*args)
    chosen = params
    if dose != 'all':
      chosen = {k: x for k, x in params.items() if optim.is_muon(slots[k])}
    if not chosen:
      raise ValueError(f'No parameters are {dose}: optim.name has to be muon.')
    rounded = jax.tree.map(
      lambda x: x.astype(jnp.bfloat16).astype(x.dtype), chosen
    )
    return {**params, **rounded}, slots

  optim.update = planted


def raise_noise(dose):
  """No level in training has a log-SNR above `dose`."""
  import jax.numpy as jnp

  from vdm.diffusion import losses

  draw = losses.draw_levels

  def planted(*args, **options):
    levels, mask = draw(*args, **options)
    return jnp.minimum(levels, dose), mask

  losses.draw_levels = planted


def guide_too_much(dose):
  """Guidance is by `dose`, whatever the configuration says."""
  from vdm.diffusion import guidance

  guided = guidance.guided

  def planted(denoise, cond, contrasts=(), **options):
    contrasts = [x._replace(weight=dose - 1.0) for x in contrasts]
    return guided(denoise, cond, contrasts, **options)

  guidance.guided = planted


def _of_scenes(change):
  """Makes a plant of a change: (scene, random generator) -> scene."""

  def plant(dose):
    import numpy as np

    from vdm.data.builders import synthetic_scenes

    render = synthetic_scenes.scenes.render

    @functools.wraps(render)
    def planted(index, **options):
      scene = render(index, **options)
      random = np.random.default_rng((97, index))
      return change(scene, random) if random.random() < dose else scene

    synthetic_scenes.scenes.render = planted

  return plant


def _shuffle_frames(scene, random):
  order = random.permutation(len(scene['frames']))
  return {**scene, 'frames': scene['frames'][order]}


def _stop(scene, random):
  frames = scene['frames']
  still = frames[random.integers(len(frames))]
  return {**scene, 'frames': still[None].repeat(len(frames), axis=0)}


def _change_label(scene, random):
  return {**scene, 'label': int(random.integers(8))}


FAULTS = {
  'frames': Fault(
    plant=_of_scenes(_shuffle_frames),
    finding='frames out of order',
    dose=1.0,
    mild=0.5,
    meaning='frames are shuffled in {:.0%} of the clips',
    data=True,
  ),
  'static': Fault(
    plant=_of_scenes(_stop),
    finding='clips without motion',
    dose=0.5,
    mild=0.25,
    meaning='nothing moves in {:.0%} of the clips',
    data=True,
  ),
  'autoencoder': Fault(
    plant=spoil_autoencoder,
    finding='poor autoencoder',
    dose=0.15,
    mild=0.1,
    meaning='parameters of the autoencoder are off by {:.0%}',
  ),
  'latents': Fault(
    plant=scale_latents,
    finding='latents out of scale',
    dose=3.0,
    mild=1.6,
    meaning='latents are {:g} times as large',
  ),
  'precision': Fault(
    plant=round_parameters,
    finding='parameters in 16 bits',
    dose='all',
    mild='hidden kernels',
    meaning='parameters are stored in bfloat16: {}',
  ),
  'average': Fault(
    plant=widen_average,
    finding='average too wide',
    dose=0.28,
    mild=0.2,
    meaning='the average is {:g} wide',
  ),
  'time': Fault(
    plant=freeze_time,
    finding='temporal layers untrained',
    dose=0.0,
    mild=0.01,
    meaning='temporal branches learn at {:g} of the rate',
  ),
  'slow': Fault(
    plant=scale_rates,
    finding='hardly trained',
    dose=1 / 30,
    mild=1 / 10,
    meaning='the learning rate is {:.2g} times as high',
  ),
  'fast': Fault(
    plant=scale_rates,
    finding='learning rate too high',
    dose=30.0,
    mild=10.0,
    meaning='the learning rate is {:g} times as high',
  ),
  'noise': Fault(
    plant=raise_noise,
    finding='low noise untrained',
    dose=0.0,
    mild=2.0,
    meaning='no log-SNR is above {:g}',
  ),
  'labels': Fault(
    plant=_of_scenes(_change_label),
    finding='labels without effect',
    dose=1.0,
    mild=0.8,
    meaning='{:.0%} of the labels are drawn at random',
    data=True,
  ),
  'guidance': Fault(
    plant=guide_too_much,
    finding='guidance too strong',
    dose=10.0,
    mild=6.0,
    meaning='guidance is {:g}',
  ),
}
