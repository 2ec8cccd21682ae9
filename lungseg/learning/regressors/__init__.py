"""From rows of numbers to values. A new one is a class of `base.Regressor` and a line in `registry`."""
