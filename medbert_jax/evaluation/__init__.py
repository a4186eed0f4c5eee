"""Predictions and results → tables."""
