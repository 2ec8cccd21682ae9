"""Data from the results, for tables, sentences and figures."""
