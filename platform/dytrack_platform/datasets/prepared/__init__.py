"""Prepared folders: clips cut from sequences, stored in shards under a manifest."""
