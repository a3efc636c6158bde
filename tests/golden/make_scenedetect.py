"""Writes scenedetect.json: the cuts that PySceneDetect sees in real clips.

In an environment of its own, since it replaces headless OpenCV:

  python -m venv venv_scene
  venv_scene/bin/pip install 'scenedetect[opencv]==0.7.2'
  venv_scene/bin/python tests/golden/make_scenedetect.py

Its default detectors, with a least scene of two frames so that cuts near
either end count. Milliseconds are of the processor, with its own decoding.
"""

import csv
import json
import pathlib
import time

import scenedetect

HERE = pathlib.Path(__file__).resolve().parent
CLIPS = HERE.parent.parent.parent / 'shared/clips'
DETECTORS = {
  'adaptive': scenedetect.AdaptiveDetector,
  'content': scenedetect.ContentDetector,
}


def main():
  found = {}
  with open(CLIPS / 'probe.csv') as file:
    rows = [row for row in csv.DictReader(file) if row['frames_decoded']]
  for row in rows:
    if row['path'].startswith('broken'):
      continue
    found[row['path']] = {}
    for name, detector in DETECTORS.items():
      video = scenedetect.open_video(str(CLIPS / row['path']), backend='opencv')
      manager = scenedetect.SceneManager()
      manager.add_detector(detector(min_scene_len=2))
      began = time.process_time()
      manager.detect_scenes(video)
      seconds = time.process_time() - began
      begins = [scene[0].frame_num for scene in manager.get_scene_list()]
      found[row['path']][name] = begins[1:]
      found[row['path']][f'{name}_ms_a_frame'] = round(
        1e3 * seconds / int(row['frames_decoded']), 2
      )
  content = {'scenedetect': scenedetect.__version__, 'cuts': found}
  text = json.dumps(content, indent=1, sort_keys=True)
  (HERE / 'scenedetect.json').write_text(text + '\n')


if __name__ == '__main__':
  main()
