"""EHR tables: one schema, on disk in shards, and what readers and rules share: codes, ICD, hashes, workers."""
