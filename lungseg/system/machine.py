"""What this machine, this code and these libraries are: what a result depends on besides its spec."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

import torch

IMPORTED_AS = {"PIL": "pillow", "sklearn": "scikit-learn"}
PACKAGES = (
    "torch",
    "torchvision",
    "triton",
    "lightgbm",
    "llvmlite",
    "scikit-learn",
    "numpy",
    "scipy",
    "pandas",
    "pillow",
)


def usable_cores() -> int:
    """Cores that this process may run on, as its affinity says (a container's quota doesn't show there)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_flags() -> set[str]:
    """What /proc/cpuinfo lists; empty where there is none."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return set(line.split(":", 1)[1].split())
    except OSError:
        pass
    return set()


def cpu_name() -> str:
    """The processor as the system names it, with its cores and whether it multiplies bfloat16 in hardware."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    matrix = ", AMX" if "amx_bf16" in cpu_flags() else ""
    return f"{name}, {usable_cores()} cores{matrix}"


def cuda_name() -> str | None:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def versions(modules: Sequence[str] = ()) -> dict[str, str]:
    """List the versions of Python, of this program, and of packages.

    Args:
        modules: names that one imports, of packages beside those of `PACKAGES`.
    """
    names = dict.fromkeys((*PACKAGES, *(IMPORTED_AS.get(module, module) for module in modules)))
    own = {"python": platform.python_version(), "lungseg": version("lungseg")}
    return own | {name: _version(name) for name in names}


@functools.cache
def _version(package: str) -> str:
    """Of a package, by its name or by the name that one imports; "not installed" without it."""
    try:
        return version(package)
    except PackageNotFoundError:
        owners = packages_distributions().get(package)  # reads all packages there are: half a second
        return version(owners[0]) if owners else "not installed"


def git_revision() -> dict[str, Any] | None:
    """Revision of the checkout that this code runs from, and whether it has changes; None outside one."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).resolve().parents[2]), *words],
            capture_output=True,
            text=True,
            timeout=10,
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", "--", "lungseg/system/machine.py"):
            return None  # installed below somebody else's repository
        revision = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--", "lungseg", "pyproject.toml")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"revision": revision, "dirty": bool(changed)} if revision else None
