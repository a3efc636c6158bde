"""Metrics cards: what a run or a folder of videos is judged by."""
