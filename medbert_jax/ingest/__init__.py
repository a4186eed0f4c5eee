"""A source's files → EHR tables: the engine; `readers` holds one file per format."""
