"""TFDS builders: EHR tables → datasets of serialized patient sequences."""
