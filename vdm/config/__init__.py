"""Configurations: every key, the rules between them, the flag, the files.

The lowest room: it imports nothing of the package, and anyone may use it.
"""
