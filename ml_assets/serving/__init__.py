"""The endpoint server. It loads releases: never a pickle, never the project's own code, and nothing of Dagster or MLflow."""
