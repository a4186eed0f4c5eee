"""Pretrained models in the form of other libraries, and out of it."""
