"""Detection on one exposure: filter, threshold, spans, peaks, growth."""
