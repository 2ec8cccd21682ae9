"""Measures given fitted approaches in processes of their own; `harness.timings` decides which."""
