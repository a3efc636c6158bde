"""Measures runs, autoencoders and folders of videos, and writes the results.

What belongs here decides which clips are generated, read, compared, cached and
written; the metrics themselves are in `metrics`, generation is in `generate`.
The training loop and the commands call this room.

During training: `small_score`, `reconstruction` (an autoencoder), `final_score`
(the final videos of a run) and `given_score` (clips that it continues). For
finished runs and folders, the metrics cards: `run_card` and `folder_card`
assemble `clip_set`s, `metrics_card` compares them, and `card_text` prints the
numbers after a `verdict`. `diagnosis` measures what tells ailments of a run
apart, in `one_step`s of denoising among others, and `ailments` names them.
"""

# Where the numbers of a run are, in its folder: of its final videos, of its
# metrics card, of its autoencoder and of its diagnosis.
NUMBERS = (
  'final/metrics.json',
  'evaluation/run/metrics_card.json',
  'autoencoder/report.json',
  'diagnosis.json',
)
