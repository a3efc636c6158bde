"""What is measured on videos: arrays in, numbers out."""
