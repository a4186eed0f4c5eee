"""Builder of a disease cohort dataset."""
