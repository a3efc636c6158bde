"""Raw videos to a dataset of clips: decode, screen, divide, write.

A build reads from top to bottom as follows. `datasets` dispatches by name to
`ucf101` or `video_folder`, which say what belongs to the dataset;
`video_dataset.Build` sends every file of the source (`sources`, `archives`)
through `prepare_file`, in `workers` or by the `beam_runner`. That decodes it
(`inspection` with `timing` and `completeness`, `decoding`, `geometry`), screens
it (`screening`, `shot_detection`) and stages its shots (`staging_area`).
`corpus` and `splits` decide what needs all files at once; `vdm.data.builders`
writes the shots, and `manifest` and `data_report` say what became of every
file.

`vdm.prepare` calls this room. Rooms above use three modules of it: `datasets`,
to find or build the dataset of a configuration, `clip_files`, to read clips
from any folder of videos, and `given_frames`, to read frames that videos go on
from.
"""
