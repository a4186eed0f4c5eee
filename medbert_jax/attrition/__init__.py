"""Who left under which rule: the ledger, its flow chart, its files, and what may be shown of small counts."""
