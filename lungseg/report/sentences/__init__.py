"""Prose for the pages: what was compared, what may be concluded, where it comes from."""
