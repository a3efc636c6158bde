"""Data sets of clips: their record format, reading and writing.

Everything that reads a data set uses the names below; `vdm.preparation` makes
a `build_plan.Plan` and has `writer` write it. Only `writer` and `index` touch
tensorflow_datasets: reading imports neither TFDS, TensorFlow nor jax, so that a
Grain worker stays light. `synthetic_scenes` is the one data set that is made
without videos. `vdm.preparation.datasets` says where the data set of a
configuration is.

    source = builders.open_source(directory, 'train')
    frames = source.frames(source.index['row'][0], 0, 16)
"""

from vdm.data.builders import build_plan
from vdm.data.builders import reader

BuildError = build_plan.BuildError
ClipSource = reader.ClipSource
MissingDataset = reader.MissingDataset
SKIPPED_FILE = reader.SKIPPED_FILE
is_complete = reader.is_complete
open_source = reader.open_source
read_info = reader.read_info
read_skipped = reader.read_skipped
