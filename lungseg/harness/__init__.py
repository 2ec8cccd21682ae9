"""Runs a spec: `run` -> `plan` -> `evaluate` (-> `fit`) -> `timings`; `keys`: what may be used again."""
