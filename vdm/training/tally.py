"""What went wrong and was survived, over all of a run: for its log."""

from vdm.multihost import coordination
from vdm.training import nonfinite


class Tally:
  """Counts over stages and restarts.

  Attributes:
    skips: the steps that were skipped, see `nonfinite.Skips`.
    bad_records: records that were replaced in this host's rows; the first
      host counts those from before the run was resumed, too.
  """

  def __init__(self, max_skipped):
    self.skips = nonfinite.Skips(max_skipped)
    self.bad_records = 0

  def resume(self, meta):
    """Goes on from what a checkpoint says."""
    self.skips.total = meta.get('skipped_steps', 0)
    if coordination.is_first():
      self.bad_records = meta.get('bad_records', 0)

  def over_all(self, step, bad_records):
    """The numbers of a row or a checkpoint, over all hosts.

    Args:
      step: of the row; waited for.
      bad_records: this host's up to it.
    """
    hosts = coordination.gather('counting bad records', str(bad_records))
    return {
      'skipped_steps': self.skips.count(step),
      'bad_records': sum(map(int, hosts)),
    }
