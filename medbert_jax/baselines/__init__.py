"""Baselines under the scikit-learn contract."""
