"""The experiment platform: data, training, evaluation, and their Ray and MLflow side."""
