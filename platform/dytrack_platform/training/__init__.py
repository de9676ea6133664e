"""Training in plain torch, without Ray or MLflow: objective, optimiser, state and loop."""
