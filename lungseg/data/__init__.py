"""From files to samples: `sample` is the protocol, `datasets` the sets, `loading` finds one by its name."""
