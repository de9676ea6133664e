"""What readers share: frames, archives, image headers and annotation text."""
