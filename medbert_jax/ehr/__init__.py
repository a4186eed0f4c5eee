"""Raw EHR tables: schema, readers, code normalisation, patient hashing and the attrition ledger (polars)."""
