"""What a result depends on besides its spec: the machine, the libraries and the revision of this code."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

IMPORTED_AS = {"PIL": "pillow", "sklearn": "scikit-learn"}
PACKAGES = (
    "torch", "torchvision", "triton", "lightgbm", "llvmlite",
    "scikit-learn", "numpy", "scipy", "pandas", "pillow",
)  # fmt: skip


def count_usable_cores() -> int:
    """Return how many cores this process may use by its affinity; a container's quota isn't considered."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_cpu_flags() -> set[str]:
    """Return the processor's feature flags from /proc/cpuinfo; empty on systems without that file."""
    return set(_cpuinfo("flags").split())


def describe_cpu() -> str:
    """Return the processor's name, its usable cores, and ", AMX" if it multiplies bfloat16 in hardware."""
    name = _cpuinfo("model name") or platform.processor() or platform.machine()
    matrix = ", AMX" if "amx_bf16" in read_cpu_flags() else ""
    return f"{name}, {count_usable_cores()} cores{matrix}"


def _cpuinfo(key: str) -> str:
    """The first value of a key in /proc/cpuinfo; empty without one."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(key):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return ""


def find_gpu_name() -> str | None:
    """Return the name of the CUDA device that is in use; None without one."""
    import torch  # not before: `lungseg --version` needn't wait for it

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def list_versions(modules: Sequence[str] = ()) -> dict[str, str]:
    """Return versions by name: of Python, this program, `PACKAGES`, and further packages by import name."""
    names = dict.fromkeys((*PACKAGES, *(IMPORTED_AS.get(module, module) for module in modules)))
    own = {"python": platform.python_version(), "lungseg": _version("lungseg")}
    return own | {name: _version(name) for name in names}


@functools.cache
def _version(package: str) -> str:
    """Return the version of a package by its own or its import name; "not installed" if it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        owners = packages_distributions().get(package)  # reads all installed packages: half a second
        return version(owners[0]) if owners else "not installed"


def describe_version() -> str:
    """Return name, version and, in a checkout, the Git revision of this program."""
    found = find_git_revision()
    if found is None:
        return f"lungseg {_version('lungseg')}"
    changed = ", changed" if found["dirty"] else ""
    return f"lungseg {_version('lungseg')} (revision {found['revision']}{changed})"


def find_git_revision() -> dict[str, Any] | None:
    """Return the Git revision that this code runs from; None outside a checkout.

    It is {"revision": 12 hex digits, "dirty": whether this code has uncommitted changes}.
    """
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", "--", "lungseg/system/machine.py"):
            return None  # installed within another repository
        revision = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--", "lungseg", "pyproject.toml")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"revision": revision, "dirty": bool(changed)} if revision else None
