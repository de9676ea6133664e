"""Published trackers in MLflow's model registry."""
