"""Search over Ray Tune, and its Pareto front."""
