"""One file per format; each only maps columns."""
