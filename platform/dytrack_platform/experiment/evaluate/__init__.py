"""Evaluation and calibration over Ray actors."""
