"""One file a subject; `all` lists the figures, and `style`, `stored` and `labels` help to draw them."""
