"""The endpoint server. It loads releases: never a pickle, never a model's own code, nothing of Dagster or MLflow."""
