"""Patient → sequence → token store → row plan (numpy)."""
