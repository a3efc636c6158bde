"""`vdm.main`, and the CRC of every clip that a step is given.

Every process writes `<workdir>/crc_<process>.jsonl`, one row a step. Parameters
are sharded from 64 values on, because the tiny run has no large ones. With
`VDM_FAULTS_HANG=<process>:<step>` that process never reaches that step, and
`VDM_FAULTS_VISIBLE` is how many seconds files of another host may take.
"""

import json
import os
import pathlib
import runpy
import sys
import time
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))


def main():
  import jax

  from vdm.multihost import workdir_lock
  from vdm.training import sharding
  from vdm.training import stage_steps

  sharding.MIN_SHARDED_SIZE = 64
  workdir_lock.VISIBLE = float(
    os.environ.get('VDM_FAULTS_VISIBLE', workdir_lock.VISIBLE)
  )
  (workdir,) = (
    x.partition('=')[2] for x in sys.argv if x.startswith('--workdir=')
  )
  hang = os.environ.get('VDM_FAULTS_HANG')
  arguments = stage_steps.StageSteps.arguments

  def traced(self, batch, n):
    crc = [
      zlib.crc32(label.tobytes(), zlib.crc32(clip.tobytes()))
      for clip, label in zip(batch['video'], batch['label'])
    ]
    path = f'{workdir}/crc_{jax.process_index()}.jsonl'
    with open(path, 'a') as file:
      file.write(json.dumps([self.span.start + n + 1, crc]) + '\n')
    if hang == f'{jax.process_index()}:{self.span.start + n + 1}':
      time.sleep(3600)
    return arguments(self, batch, n)

  stage_steps.StageSteps.arguments = traced
  runpy.run_module('vdm.main', run_name='__main__', alter_sys=True)


if __name__ == '__main__':
  main()
