"""What a video shows, measured while it decodes, and rules over it."""
