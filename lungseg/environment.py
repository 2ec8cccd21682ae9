"""What this machine, this code and these libraries are: what a result depends on besides its spec."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import platform
import re
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import threadpoolctl
import torch

from lungseg.approaches.approach import Runtime
from lungseg.errors import InputError, first_line, is_out_of_memory, without_folders
from lungseg.ranks import local_world_size
from lungseg.spec import RuntimeSpec

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
ROOT = Path(__file__).resolve().parent


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


def resolve_runtime(spec: RuntimeSpec, device: str | None = None) -> Runtime:
    """What "auto" means here.

    Args:
        spec: the `[runtime]` table.
        device: --device, which wins over the table.

    Raises:
        InputError: CUDA is asked for and there is none.
    """
    wanted = device or spec.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "device cuda is asked for, but torch finds no CUDA device here: use --device cpu or auto"
        )
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    precision = spec.precision
    if precision == "auto":
        precision = "bfloat16" if _multiplies_bfloat16(wanted) else "float32"
    threads = spec.threads or max(1, usable_cores() // local_world_size())
    # oneDNN takes maps as they lie if channels are last; else it reorders them for each convolution.
    channels_last = wanted == "cpu" or precision == "bfloat16"
    return Runtime(torch.device(wanted), precision, channels_last, spec.compiled, threads)


def usable_runtime(spec: RuntimeSpec, device: str | None = None) -> tuple[Runtime, str | None]:
    """`resolve_runtime` without torch.compile where that can't be used, and why it can't (else None)."""
    runtime = resolve_runtime(spec, device)
    problem = why_not_compiled(runtime.device.type) if runtime.compiled else None
    return (runtime, None) if problem is None else (replace(runtime, compiled=False), problem)


@functools.cache
def why_not_compiled(device: str) -> str | None:
    """Why torch.compile can't be used here, by compiling a tiny network (seconds, once); None if it can.

    Raises RuntimeError or MemoryError if a memory is full, which says nothing of the compiler.
    """
    try:
        torch.compile(torch.nn.Softplus())(torch.zeros(8, device=device))
    except Exception as error:  # its back end raises errors of many kinds
        if is_out_of_memory(error):
            raise
        return without_folders(first_line(error))
    return None


def _multiplies_bfloat16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return "amx_bf16" in cpu_flags()


def use_threads(threads: int) -> None:
    """Fixes the threads of torch, BLAS and OpenMP; rounding, and so the result, depends on their number."""
    torch.set_num_threads(threads)
    threadpoolctl.threadpool_limits(threads)


def be_deterministic() -> None:
    """Asks torch for algorithms that repeat their bits; where CUDA has none it warns and goes on."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would also fill each new tensor, a noticeable part of a training step on a CPU; nothing here reads
    # what it hasn't written.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False


def versions(others: Sequence[str] = ()) -> dict[str, str]:
    """Of Python, of this program, of the packages that it stands on, and of `others`."""
    found = {"python": platform.python_version(), "lungseg": version("lungseg")}
    for package in (*PACKAGES, *others):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_revision() -> dict[str, Any] | None:
    """Revision of the checkout that this code runs from, and whether it has changes; None outside one."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(ROOT.parent), *words], capture_output=True, text=True, timeout=10
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", "--", "lungseg/environment.py"):
            return None  # installed below somebody else's repository
        revision = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--", "lungseg", "pyproject.toml")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"revision": revision, "dirty": bool(changed)} if revision else None


def hash_code(*places: Path) -> str:
    """sha256 over the Python files at or below the places, by their names and bytes."""
    digest = hashlib.sha256()
    files = [
        file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])
    ]
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


class PeakMemory:
    """Peak memory while the `with` block runs: on a CPU the resident set of this whole process, on CUDA what
    the allocator gave out on the device.

    Linux keeps the peak itself and lets a process reset it (proc(5): clear_refs and VmHWM); elsewhere it is
    looked at every 20 ms.

    Attributes:
        mib: the peak in MiB, once the block has ended.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.mib = 0.0
        self._done = threading.Event()
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif not self._reset_kernel_peak():
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    @staticmethod
    def _reset_kernel_peak() -> bool:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return False
        return True

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self.mib = max(self.mib, process.memory_info().rss / 2**20)
            if self._done.wait(0.02):
                return

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.mib = torch.cuda.max_memory_allocated(self.device) / 2**20
        elif self._watcher is not None:
            self._done.set()
            self._watcher.join()
        else:
            line = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
            self.mib = int(line[1]) / 1024


def code_places(kind: type) -> list[Path]:
    """Where the code that an approach's fit depends on lies, beside what all of them share."""
    packages = [Path(find_spec(name).origin).parent for name in kind.built_on]
    return [module_place(kind), *packages]


def module_place(kind: type) -> Path:
    """Where a class's own code lies: its package's folder, or its file if the package is a shared one."""
    file = Path(inspect.getfile(kind))
    ours = (ROOT / "approaches", ROOT / "data")
    shared = file.parent in ours or not (file.parent / "__init__.py").exists()
    return file if shared else file.parent
