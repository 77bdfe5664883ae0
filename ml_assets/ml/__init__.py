"""What is done with tables and models, as functions that know neither Dagster nor storage."""
