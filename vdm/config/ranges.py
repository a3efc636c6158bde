"""What values of scalar conditions a run has been trained with."""

from ml_collections import ConfigDict

UNITS = {
  'frame_rate': 'frames a second',
  'motion': 'frame widths a second',
}


def trained(config: ConfigDict) -> dict[str, tuple[float, float]]:
  """Returns the lowest and the highest value of each of `model.scalars`."""
  model, data = config.model, config.data
  rate = data.frame_rate
  known = {
    'frame_rate': (
      rate / max(data.max_stride, data.stride),
      rate / data.stride,
    ),
    'motion': tuple(model.motion_range),
  }
  return {name: known[name] for name in model.scalars}


def problem(config: ConfigDict, name: str, value: float) -> str:
  """Returns why a run cannot be told a value, or ''.

  Args:
    config: the run's.
    name: of the scalar, one of `UNITS`.
    value: that is wanted.
  """
  found = trained(config)
  if name not in found:
    knows = ', '.join(found) or 'none'
    return (
      f'The run was not trained to be told --{name} (config.model.scalars: '
      f'{knows}): leave it out.'
    )
  low, high = found[name]
  # As they are printed, they are accepted.
  if not float(f'{low:.3g}') * 0.999 <= value <= float(f'{high:.3g}') * 1.001:
    return (
      f'--{name}={value:g} is outside of what the run was trained with, '
      f'{low:.3g} to {high:.3g} {UNITS[name]}.'
    )
  return ''
