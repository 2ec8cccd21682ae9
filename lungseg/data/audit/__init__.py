"""Compares pictures and checks a dataset; what a run does about leaks is in `harness.leaks`."""
