"""Losses, optimizer, masking inside jit, sharding, steps, checkpoints."""
