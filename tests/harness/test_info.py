import sys

import pytest

from lungseg.harness import info
from lungseg.learning.trees import evaluator as trees
from lungseg.learning.trees import llvm as trees_llvm


@pytest.fixture
def without_triton(monkeypatch):
    def fails(*_):
        raise ImportError("Failed to find C compiler")

    monkeypatch.setattr(trees, "_make_triton", fails)
    monkeypatch.setattr(info, "find_gpu_name", lambda: "a GPU")


def test_it_says_what_evaluates_trees(monkeypatch):
    monkeypatch.setattr(info, "find_gpu_name", lambda: None)
    rows = dict(info.list_facts())
    assert rows["trees on CPU"] == "llvm"
    assert "trees on CUDA" not in rows
    assert "llvmlite" in rows["versions"]


def test_it_says_what_to_install_for_faster_trees(without_triton, monkeypatch):
    assert dict(info.list_facts())["trees on CUDA"] == (
        "llvm; the engine 'triton' doesn't work here (Failed to find C compiler): "
        "install triton, a C compiler and Python's headers"
    )
    trees_llvm._compile_once.cache_clear()
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    rows = dict(info.list_facts())
    assert rows["trees on CPU"].startswith("lightgbm; ")
    assert rows["trees on CPU"].endswith("install llvmlite")
    assert rows["trees on CUDA"].startswith("lightgbm; ")
