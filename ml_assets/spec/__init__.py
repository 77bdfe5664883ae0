"""What one model declares in its `defs.yaml`, with every default in sight. No behaviour lives here.

The classes are strict and frozen and refuse unknown keys, so that a typo is found where it was written.
"""
