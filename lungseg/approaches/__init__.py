"""Ways to make masks, as a spec names them. A new one: a class of `base.Approach`, a line in `registry`."""
