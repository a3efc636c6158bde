"""The synthetic world and its laws, in NumPy alone; judged by `vdm.metrics`."""
