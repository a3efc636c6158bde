"""What a run would need, of hardware that need not be there.

`targets` knows the devices, `costs` counts what a stage needs, `compiling` asks
the target's own compiler, in a process of its own (`compile_step`), `fit` finds
what would make a stage fit, `data_rate` times this machine's pipeline, `disk`
adds up what is stored.
"""
