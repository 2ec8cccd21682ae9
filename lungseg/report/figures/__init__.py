"""One file a subject; `all` lists the figures, `style` helps to draw them, `xrays` has those of X-rays."""
