"""Raw videos to a data set of clips: decode, screen, divide, write.

Used by `vdm.prepare` alone, but for `datasets`, which says where the data set
of a configuration is, and `clip_files`, which reads anyone's videos.
"""
