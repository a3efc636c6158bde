"""What any room may use and what imports none: files, trees, text, progress."""
