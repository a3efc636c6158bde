"""Where people look at a run while it trains, besides its own folder.

`tensorboard`, `wandb_run` and `trackio_run` know one place and one library
each, which they import when it is used. `background` has the calls that they
share and the thread they run on; `chosen` starts those that a configuration
names.
"""
