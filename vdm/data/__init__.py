"""From a data set of clips to batches; Grain's workers import it: no jax.

`pipeline` serves training and `eval_clips` evaluation; both read clips through
`clip_reader`. `builders` reads and writes the data sets themselves, `synthetic`
renders one.
"""
