"""The dynamic tracker: one transformer with several exits, and what it takes to run one.

Importing this package costs nothing: torch and timm are loaded by the modules that need them.
"""
