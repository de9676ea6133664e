"""Serve a tracker to many streams: sessions, and a scheduler that batches by stage; no Ray here."""
