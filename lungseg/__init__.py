"""lungseg: pixel features against a deep network for finding the lungs in chest X-rays."""

import importlib

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import `load` when it is first asked for: `import lungseg` needn't wait for torch."""
    if name == "load":
        return importlib.import_module(f"{__name__}.prediction.models").load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
