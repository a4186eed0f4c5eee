"""One page that a clinician reads, of results, evaluation, description and attrition; nothing reads it."""
