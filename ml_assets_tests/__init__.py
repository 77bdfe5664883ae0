"""Tests: beside the unit tests, which mirror ml_assets/, the whole graph runs for real in end_to_end/, examples/, browser/."""
