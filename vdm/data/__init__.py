"""Videos in, batches out: decoding, datasets of clips, the Grain pipeline."""
