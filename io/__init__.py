"""Files to records and records to files."""
