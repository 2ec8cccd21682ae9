"""Image files: found, matched by name, decoded."""
