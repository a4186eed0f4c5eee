"""Flax modules. They know nothing of files, cohorts or training."""
