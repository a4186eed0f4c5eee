"""Builder of the pretraining dataset."""
