"""`vgg19-context`: a shape prior, then stages of trees that read earlier maps; see `approach`."""
