"""Presets: one file each; the docstring says command, duration and expected result."""
