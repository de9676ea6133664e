"""Training over Ray Train."""
