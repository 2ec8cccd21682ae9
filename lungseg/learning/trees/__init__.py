"""Trees of LightGBM: bins, tables of codes, training on them, and the engines that evaluate forests."""
