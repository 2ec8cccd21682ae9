from importlib.metadata import version

import numpy as np
import pytest
import torch

from lungseg import environment
from lungseg.environment import PeakMemory, hash_code, module_place, resolve_runtime, versions
from lungseg.errors import InputError
from lungseg.spec import RuntimeSpec

CPU = torch.device("cpu")
BLOCK = 200 * 2**20


@pytest.mark.parametrize("kernel_keeps_it", [True, False])
def test_peak_memory_sees_what_was_there_for_a_while_only(kernel_keeps_it, monkeypatch):
    if not kernel_keeps_it:
        monkeypatch.setattr(PeakMemory, "_reset_kernel_peak", staticmethod(lambda: False))
    with PeakMemory(CPU) as idle:
        pass
    with PeakMemory(CPU) as busy:
        block = np.ones(BLOCK, np.uint8)
        for _ in range(20):  # long enough to be looked at
            block += 1
        del block
    with PeakMemory(CPU) as after:
        pass
    assert busy.mib > idle.mib + 150
    assert after.mib < busy.mib - 100  # a peak of its own, not that of the process's life


def test_cuda_is_refused_without_a_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA device"):
        resolve_runtime(RuntimeSpec(device="cuda"))
    assert resolve_runtime(RuntimeSpec()).device.type == "cpu"
    assert resolve_runtime(RuntimeSpec(threads=3, precision="float32")).threads == 3


@pytest.mark.parametrize(
    ("device", "multiplies", "precision", "expected"),
    [
        ("cpu", True, "auto", ("bfloat16", True)),
        ("cpu", False, "auto", ("float32", True)),
        ("cpu", True, "float32", ("float32", True)),
        ("cuda", True, "auto", ("bfloat16", True)),
        ("cuda", False, "auto", ("float32", False)),
    ],
)
def test_precision_and_layout_follow_the_device(device, multiplies, precision, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(environment, "_multiplies_bfloat16", lambda _: multiplies)
    found = resolve_runtime(RuntimeSpec(device=device, precision=precision))
    assert (found.precision, found.channels_last) == expected


def test_versions_name_what_computes_and_what_is_missing(monkeypatch):
    found = versions()
    assert found["llvmlite"] == version("llvmlite")
    assert "triton" in found
    monkeypatch.setattr(environment, "PACKAGES", ("no-such-package-here",))
    assert versions()["no-such-package-here"] == "not installed"


def test_the_hash_of_code_follows_names_and_bytes(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    first = hash_code(tmp_path)
    assert hash_code(tmp_path) == first
    (tmp_path / "a.py").write_text("x = 2\n")
    changed = hash_code(tmp_path)
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, changed, hash_code(tmp_path)}) == 3


def test_an_approach_in_a_folder_of_its_own_is_hashed_with_its_neighbours():
    from lungseg.approaches.baselines import MeanMask
    from lungseg.approaches.vgg19_pixels.approach import Vgg19Pixels
    from lungseg.data.cxr704 import Cxr704Dataset

    assert module_place(MeanMask).name == "baselines.py"
    assert module_place(Vgg19Pixels).name == "vgg19_pixels"
    assert module_place(Cxr704Dataset).name == "cxr704.py"  # data/ holds what no fit depends on


class Wrapped(Exception):
    """As torch.compile's are: its own first line says nothing."""

    inner_exception = OSError("no g++ in /usr/local/bin/tools\nand more")


@pytest.mark.parametrize(
    ("error", "said"),
    [(None, None), (Wrapped("backend raised:\n..."), "no g++ in tools"), (ValueError(), "ValueError")],
)
def test_whether_anything_can_be_compiled_is_tried(monkeypatch, error, said):
    def compiler(network):
        def call(values):
            if error is not None:
                raise error
            return network(values)

        return call

    monkeypatch.setattr(torch, "compile", compiler)
    environment.why_not_compiled.cache_clear()
    assert environment.why_not_compiled("cpu") == said
    environment.why_not_compiled.cache_clear()


def test_a_full_memory_is_not_taken_for_a_missing_compiler(monkeypatch):
    def full(network):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch, "compile", full)
    environment.why_not_compiled.cache_clear()
    with pytest.raises(torch.OutOfMemoryError):
        environment.why_not_compiled("cpu")
