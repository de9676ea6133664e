"""One story per command: each module is a pipeline that reads top to bottom."""
