"""lungseg: pixel features against a deep network for finding the lungs in chest X-rays."""

__version__ = "0.1.0"
