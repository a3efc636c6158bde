"""Arrays to files that people look at."""
