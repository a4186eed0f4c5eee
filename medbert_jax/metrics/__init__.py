"""Numbers from predictions (numpy)."""
