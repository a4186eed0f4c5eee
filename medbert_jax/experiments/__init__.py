"""Experiments as enumerations of run specs."""
