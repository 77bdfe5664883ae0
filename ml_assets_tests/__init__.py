"""Unit tests mirror ml_assets/; in end_to_end/ and examples/ the whole graph runs for real."""
