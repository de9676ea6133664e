"""Runs in MLflow: opened, written through a journal, and always ended."""
