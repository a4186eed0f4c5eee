"""What is written: whole files, whole folders, one lock. No other folder writes a file by itself."""
