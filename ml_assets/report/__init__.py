"""The report page of a model: one HTML file, made from what its assets recorded, to be read on any screen."""
