"""A stored model and pictures -> masks, overlays, cut-outs and a table; models as folders and as ONNX."""
