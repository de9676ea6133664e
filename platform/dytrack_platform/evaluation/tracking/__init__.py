"""Run trackers on sequences, and store what they gave."""
