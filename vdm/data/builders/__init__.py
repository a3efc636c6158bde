"""Data sets of clips: their record format, reading and writing.

This is the only room that touches tensorflow_datasets, and only while it
writes: opening and reading a data set import neither TFDS, TensorFlow nor jax,
so that a Grain worker stays light. `vdm.preparation.datasets` says where the
data set of a configuration is.

    source = builders.open_source(directory, 'train')
    frames = source.frames(source.index['row'][0], 0, 16)
"""

from vdm.data.builders import reader
from vdm.data.builders import shot_records

BuildError = shot_records.BuildError
ClipSource = reader.ClipSource
MissingDataset = reader.MissingDataset
SKIPPED_FILE = reader.SKIPPED_FILE
is_complete = reader.is_complete
open_source = reader.open_source
read_info = reader.read_info
read_skipped = reader.read_skipped
