"""From a results directory to what people read: `contents` reads, `write` and `publish` store."""
