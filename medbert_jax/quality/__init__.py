"""Is it sound? Validation rules over EHR tables, and their report."""
