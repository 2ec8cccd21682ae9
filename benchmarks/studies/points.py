"""Points of a curve, each measured in a process of its own and stored, so that a study can be interrupted."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lungseg.system.errors import InputError
from lungseg.system.files import read_json, write_json


def get_point(path: Path, key: Mapping[str, Any], module: str, *words: str) -> dict[str, float]:
    """Return a point from its file if it was measured with the same key; else measure it.

    Args:
        path: of the file.
        key: what the point depends on: code, processor, libraries.
        module: run as `python -m MODULE WORDS SCRATCH`, with an empty folder as last word; its last line is
            the point as JSON.
        words: its other words.

    Raises:
        InputError: the process failed.
    """
    if path.exists():
        stored = read_json(path)
        if stored.get("key") == key:
            return stored["found"]
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", module, *words, scratch]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise InputError(
            f"the process that measured {path.stem} failed with exit code {done.returncode}: mend what it "
            "says above, then run the same command again"
        )
    found = json.loads(done.stdout.splitlines()[-1])
    write_json(path, {"key": key, "found": found})
    return found


def measure_exponent(counts: pd.Series, values: pd.Series) -> float:
    """Return the exponent of growth of values with counts: least squares on log axes; 1 is in proportion."""
    return float(np.polyfit(np.log(counts), np.log(values), 1)[0])
