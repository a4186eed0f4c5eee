"""One patient, rule by rule, as text and as a page."""
