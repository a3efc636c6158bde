"""The flags of the sampler, which the commands that make videos share."""

from collections.abc import Callable
from typing import Any

from absl import flags

METHODS = ('ddim', 'heun', 'dpmpp', 'consistency')


def define(scope: str = '') -> Callable[[], dict[str, Any]]:
  """Defines --steps, --guidance, --method, --eta and --temperature.

  Args:
    scope: what their descriptions begin with, such as 'run: '.

  Returns:
    A function that returns {key of `config.sample`: value} of those that are
    given.
  """

  def said(text):
    return scope + text if scope else text[0].upper() + text[1:]

  defined = (
    flags.DEFINE_integer(
      'steps',
      None,
      said("of the sampler; by default the run's."),
      lower_bound=1,
    ),
    flags.DEFINE_string(
      'guidance',
      None,
      said(
        'a scale, 1 for none, or scales by group, as in '
        "given=1.5,label=2,text=5; by default the run's."
      ),
    ),
    flags.DEFINE_enum(
      'method', None, METHODS, said("the sampler; by default the run's.")
    ),
    flags.DEFINE_float(
      'eta',
      None,
      said(
        'of ddim, noise in every step: 0 for none, 1 for the most; by default '
        "the run's."
      ),
      lower_bound=0.0,
      upper_bound=1.0,
    ),
    flags.DEFINE_float(
      'temperature',
      None,
      said(
        'of the tokens that are drawn, of a model of tokens; by default the '
        "run's."
      ),
    ),
  )
  return lambda: {x.name: x.value for x in defined if x.value is not None}
