"""Points of a placement: what exits said, thresholds solved on it, their cost, and the proof."""
