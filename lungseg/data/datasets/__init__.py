"""One dataset a file. A new one is a class of `data.sample.Dataset` and a line in `registry`."""
