"""Commands beside `lungseg benchmark`: score masks or stored models, check data, tell of the machine."""
