"""Videos: read, drawn on, written."""
