"""Inside a model: attention of single patients, neighbours in the code table."""
