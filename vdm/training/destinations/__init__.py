"""Where people look at a run while it trains, besides its own folder.

Each module writes to one place and knows its library, which is imported when
the first row is written: `tensorboard`, `wandb_run` and `trackio_run`. The
calls they have in common are `background.Destination`.
"""
