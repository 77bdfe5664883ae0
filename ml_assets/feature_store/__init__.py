"""The feature store: Feast over the tables of the lake, and what its online store holds."""
