"""From masks to numbers to statistics; knows no approach. `metrics` says where a new metric goes."""
