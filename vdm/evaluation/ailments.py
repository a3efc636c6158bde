"""What is wrong with a run, from the numbers that `diagnosis` measures.

Every check looks at numbers that its ailment moves and others do not, and they
are listed from cause to effect: data, autoencoder, parameters, optimiser, noise
levels, conditions, sampling. What is found first is what to mend first, since
it may explain the rest. Thresholds lie between the numbers of healthy runs and
of runs with one planted fault, short ones (benchmarks/ailments.py) and the
demo; docs/diagnose.md has them.
"""

from collections.abc import Callable
import math
from typing import Any, NamedTuple

SHUFFLED = 0.85  # Of 'order'. In order: 0.3 to 0.6.
STATIC = 0.2  # Share of clips.
POOR_PSNR = 26.0  # dB.
RMS = (0.7, 1.4)  # Of latents.
ROUNDED = 0.99  # Share of parameters; 1 in 65 536 by chance.
WIDE_AVERAGE = 0.93  # Error of the parameters over that of their average.
# Size of layers that start at zero, 1 for a common layer. It grows as the root
# of the steps: 0.8 after 500 of Muon at its default rate, 3.1 after 6 500.
GROWN = 0.3
THROWN = 20.0
UNUSED = 0.05  # Size of temporal layers to that of all that start at zero.
BEATEN = 1.0  # Error over that of a denoiser which learned nothing.
# Over that of not using the network. Where there is the least noise, which is
# 0.002 of the latents, short runs have hardly begun to learn.
LEAST_NOISE = 1.6
MOST_NOISE = 1.05
LABEL_GAIN = 0.04  # Share of the error that the right label takes away.
COMPANY_GAIN = 0.02  # Share that other clips' frames in place of its own add.
OVERSHOOT = 1.1  # RMS of samples' latents to that of real ones.


class Finding(NamedTuple):
  """One ailment of a run.

  Attributes:
    name: of the ailment.
    what: what was measured, with numbers.
    todo: what to do about it.
  """

  name: str
  what: str
  todo: str


class Line(NamedTuple):
  """A number that tells ailments apart, for people.

  Attributes:
    title: what was measured.
    key: of the number.
    healthy: where it lies in a healthy run, in words.
  """

  title: str
  key: str
  healthy: str


LINES = (
  Line('step to the next frame / to a far one', 'order', f'below {SHUFFLED:g}'),
  Line('clips in which nothing moves', 'static_share', f'below {STATIC:g}'),
  Line('autoencoder, PSNR, dB', 'autoencoder_psnr', f'{POOR_PSNR:g} or more'),
  Line('RMS of normalised latents', 'latent_rms', '{:g} to {:g}'.format(*RMS)),
  Line('parameters that bfloat16 holds', 'rounded_share', 'near 0'),
  Line(
    'layers that start at zero, size',
    'zero_init_size',
    f'{GROWN:g} to {THROWN:g}',
  ),
  Line('temporal ones of them', 'temporal_size', 'as those'),
  Line('error / of the average', 'raw_over_average', f'{WIDE_AVERAGE} or more'),
  Line('error / of the best linear one', 'over_linear', f'below {BEATEN:g}'),
  Line(
    'error / of z itself, least noise',
    'over_identity',
    f'{LEAST_NOISE:g} or less',
  ),
  Line('error / of x0 = 0, most noise', 'over_zero', f'{MOST_NOISE:g} or less'),
  Line('what the label takes away', 'label_gain', f'{LABEL_GAIN} or more'),
  Line(
    "what other clips' frames add", 'company_gain', f'{COMPANY_GAIN} or more'
  ),
  Line('RMS of latents, samples / real', 'overshoot', f'below {OVERSHOOT:g}'),
)


def judge(numbers: dict[str, Any]) -> list[Finding]:
  """Returns what is wrong, from cause to effect; nothing for a healthy run.

  Args:
    numbers: see `diagnosis.measure`. Checks of numbers that are missing, as
      those of labels where there are none, find nothing.
  """
  found = [check(numbers) for check in _CHECKS]
  return [finding for finding in found if finding is not None]


def _number(numbers, name):
  value = numbers.get(name)
  return math.nan if value is None else float(value)


class _Limit(NamedTuple):
  """An ailment that one number shows, outside of an interval."""

  name: str
  key: str
  low: float
  high: float
  what: str  # Formats the number.
  todo: str

  def __call__(self, numbers: dict[str, Any]) -> Finding | None:
    value = _number(numbers, self.key)
    if value < self.low or value > self.high:
      return Finding(self.name, self.what.format(value), self.todo)
    return None


def _unused_time(numbers):
  size = _number(numbers, 'temporal_size')
  grown = _number(numbers, 'zero_init_size')
  if grown >= GROWN and size < UNUSED * grown:
    return Finding(
      'temporal layers untrained',
      f'They have a size of {size:.3f}, others that started at zero of '
      f'{grown:.2f}: frames are denoised one by one.',
      'Look at stages.*.frozen and image_fraction, and whether a stage trains '
      'on clips of more than one frame.',
    )


def _learning_rate(numbers):
  ratio, grown = (
    _number(numbers, name) for name in ('over_linear', 'zero_init_size')
  )
  if grown > THROWN:
    return Finding(
      'learning rate too high',
      f'Layers that start at zero have a size of {grown:.0f}, others of 1.',
      'Lower the learning rate (stages.*.learning_rate and '
      'optim.muon_learning_rate), or raise optim.weight_decay.',
    )
  if ratio < BEATEN or math.isnan(ratio):
    return None
  what = f'The error is {ratio:.2f} times that of the best linear denoiser'
  if grown < GROWN:
    return Finding(
      'hardly trained',
      f'{what}, and layers that start at zero have a size of {grown:.3f}.',
      'Raise the learning rate (stages.*.learning_rate), or train longer.',
    )
  if not math.isnan(grown):  # There are layers that start at zero.
    what += f', though layers that start at zero have grown to {grown:.2f}'
  return Finding(
    'trained and not learning',
    f'{what}.',
    'Lower the learning rate (stages.*.learning_rate), look at grad_norm and '
    'skipped steps in the log; or train much longer.',
  )


def _untrained_levels(numbers):
  for key, limit, where, name in (
    (
      'over_identity',
      LEAST_NOISE,
      'with the least noise',
      'low noise untrained',
    ),
    ('over_zero', MOST_NOISE, 'with the most noise', 'high noise untrained'),
  ):
    ratio = _number(numbers, key)
    if ratio > limit:
      return Finding(
        name,
        f'{where.capitalize()} the network is wrong by {ratio:.2f} times what '
        'not using it would be.',
        'Let diffusion.density_mean and density_std cover the levels that '
        'sampling passes, see loss/logsnr_* in the log.',
      )
  return None


_CHECKS: tuple[Callable[[dict[str, Any]], Finding | None], ...] = (
  _Limit(
    name='frames out of order',
    key='order',
    low=-math.inf,
    high=SHUFFLED,
    what=(
      'In training clips the next frame is {:.2f} times as different as one '
      'half a clip away.'
    ),
    todo=(
      'Watch clips of the data report, and check how frames were sorted and '
      'which stride was taken.'
    ),
  ),
  _Limit(
    name='clips without motion',
    key='static_share',
    low=-math.inf,
    high=STATIC,
    what='In {:.0%} of the training clips nothing moves.',
    todo=(
      'Prepare the data again with data.screening.rules that leave out '
      "'frozen' and 'low_motion'."
    ),
  ),
  _Limit(
    name='poor autoencoder',
    key='autoencoder_psnr',
    low=POOR_PSNR,
    high=math.inf,
    what=(
      'It gives held-out clips back with {:.1f} dB: no sample can look better.'
    ),
    todo=(
      'Train it longer, with more channels or a smaller factor, before the '
      'video model; python -m vdm.evaluate autoencoder shows its worst '
      'clips.'
    ),
  ),
  _Limit(
    name='latents out of scale',
    key='latent_rms',
    low=RMS[0],
    high=RMS[1],
    what=(
      'Normalised latents of held-out clips have an RMS of {:.2f}, not 1: all '
      'noise levels are shifted.'
    ),
    todo=(
      'The statistics in autoencoder/ are not of these data or weights: let '
      'the run write them again in a new folder.'
    ),
  ),
  _Limit(
    name='parameters in 16 bits',
    key='rounded_share',
    low=-math.inf,
    high=ROUNDED,
    what=(
      '{:.0%} of the parameters are numbers that bfloat16 holds: steps '
      'smaller than 1/256 of a parameter are lost.'
    ),
    todo=(
      'Keep parameters in float32; only train.compute_dtype may be bfloat16.'
    ),
  ),
  _Limit(
    name='average too wide',
    key='raw_over_average',
    low=WIDE_AVERAGE,
    high=math.inf,
    what=(
      'The parameters have {:.2f} times the error of their average, which '
      'makes the videos.'
    ),
    todo='Sample with a narrower one (--ema), or add one to optim.ema.',
  ),
  _unused_time,
  _learning_rate,
  _untrained_levels,
  _Limit(
    name='labels without effect',
    key='label_gain',
    low=LABEL_GAIN,
    high=math.inf,
    what=(
      'The right label takes away {:.1%} of the error at the level where it '
      'helps most.'
    ),
    todo=(
      'Check that labels belong to their clips (data report), and '
      'model.label_dropout. A network that has learned little, or is '
      'trained at a rate that does not suit it, has not learned labels '
      'either.'
    ),
  ),
  _Limit(
    name='frames ignore each other',
    key='company_gain',
    low=COMPANY_GAIN,
    high=math.inf,
    what="Among another clip's frames a frame's error grows by {:.1%} only.",
    todo='Give the network attention over (t h w): model.joint_levels.',
  ),
  _Limit(
    name='guidance too strong',
    key='overshoot',
    low=-math.inf,
    high=OVERSHOOT,
    what='Latents of samples are {:.2f} times as large as real ones.',
    todo=(
      'Lower sample.guidance, restrict it (sample.guidance_interval) or set '
      'sample.guidance_rescale.'
    ),
  ),
)
