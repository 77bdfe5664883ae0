"""A simulated business for the demo: it lands files as an outside system would, and knows nothing of the platform."""
