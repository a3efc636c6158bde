"""vdm: train a latent video-diffusion model from scratch."""

import os

# How etils.epath reaches gs://, see `vdm.common.buckets`; it is read when the
# first path is met. Through gcsfs, not through TensorFlow, which takes long to
# import and which sampling does without.
os.environ.setdefault('EPATH_USE_TF', 'false')
# gcsfs would remember listings; but other processes write to the folders of a
# run, and so does TensorStore.
os.environ.setdefault('FSSPEC_GCS', '{"use_listings_cache": false}')
