"""Helpers for every room: files, trees, tables, progress, threads, console.

What two rooms need and neither owns belongs here. Every room may call it; it
imports no other room, no jax and no TensorFlow.
"""
