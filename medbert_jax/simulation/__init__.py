"""A simulated health system with known truth, which writes the EHR tables of every other source (numpy)."""
