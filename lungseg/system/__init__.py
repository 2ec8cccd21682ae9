"""The machine and its files, nothing of lungs: hashing, processes, progress, errors."""
