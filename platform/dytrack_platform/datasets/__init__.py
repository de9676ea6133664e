"""Datasets: readers, frames, clips on disk, and the pairs that training sees."""
