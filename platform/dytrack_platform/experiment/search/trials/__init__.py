"""Trainings of a search: what is tried next, one trial, all of them, and their record."""
