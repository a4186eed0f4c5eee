"""Cohort specs as data, and the one interpreter that turns them into index, label and ledger (polars)."""
