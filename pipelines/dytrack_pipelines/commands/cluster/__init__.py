"""Commands about clusters and services: jobs, the MLflow server, and what may be wrong."""
