"""Configurations: every key, rules between keys, the flag, config.json.

It imports only `common` from the package, and every room may import it.
"""
