import pytest
import torch

from lungseg.spec import RuntimeSpec
from lungseg.system import usable_runtime
from lungseg.system.errors import InputError
from lungseg.system.usable_runtime import resolve_runtime


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
    monkeypatch.setattr(usable_runtime, "_multiplies_bfloat16", lambda _: multiplies)
    found = resolve_runtime(RuntimeSpec(device=device, precision=precision))
    assert (found.precision, found.channels_last) == expected


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
    usable_runtime.why_not_compiled.cache_clear()
    assert usable_runtime.why_not_compiled("cpu") == said
    usable_runtime.why_not_compiled.cache_clear()


def test_a_full_memory_is_not_taken_for_a_missing_compiler(monkeypatch):
    def full(network):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch, "compile", full)
    usable_runtime.why_not_compiled.cache_clear()
    with pytest.raises(torch.OutOfMemoryError):
        usable_runtime.why_not_compiled("cpu")
