"""Which code a module reaches, and what of a change to it counts."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lungseg.system import hashing
from lungseg.system.errors import InputError
from lungseg.system.hashing import find_libraries, find_reached_modules, hash_code, hash_value


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A third-party package; a function writes or changes its modules."""
    folder, ticks = tmp_path / "theirs", itertools.count(1)
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    def write(**modules: str) -> None:
        for name, text in modules.items():
            file = tmp_path / f"{name.replace('__', '/')}.py"
            file.parent.mkdir(exist_ok=True, parents=True)
            file.write_text(text)
            os.utime(file, ns=(0, next(ticks)))  # two writes within one tick of the clock are two

    write(
        theirs__approach='''
"""Docstring."""
import numpy
from theirs import near
import beside


def fit():
    """Docstring."""
    from theirs.lazy import value  # imported when it is needed
    return value + 1
''',
        theirs__near='HELPER = "theirs.named:Class"\nA = 1\n',
        theirs__lazy="value = 2\n",
        theirs__named="class Class:\n    size = 3\n",
        theirs__other="unreached = 4\n",
        beside="B = 5\n",
    )
    (folder / "__init__.py").write_text("")
    import theirs.approach  # noqa: F401

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] in ("theirs", "beside")]:
        del sys.modules[name]


def test_what_is_reached_is_found_by_imports_also_lazy_ones_and_names_of_classes(package):
    assert list(find_reached_modules("theirs.approach")) == [
        "beside",
        "theirs",
        "theirs.approach",
        "theirs.lazy",
        "theirs.named",
        "theirs.near",
    ]
    assert find_libraries("theirs.approach") == ["numpy"]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("theirs__approach", '"""Docstring."""\nimport', '"""Reworded.\n\nAnd longer."""\nimport'),
        ("theirs__approach", '    """Docstring."""\n', ""),
        ("theirs__approach", "  # imported when it is needed", "  # reworded"),
        ("theirs__near", "A = 1", "\n\nA   =   1"),
        ("theirs__named", "size = 3", 'size = 3\n    """In pixels."""'),
        ("theirs__other", "unreached = 4", "unreached = 5"),
    ],
)
def test_a_change_that_computes_nothing_else_counts_for_nothing(package, tmp_path, name, old, new):
    changed(package, tmp_path, name, old, new, counts=False)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("theirs__approach", "value + 1", "value + 2"),
        ("theirs__near", "A = 1", "A = 1.0"),
        ("theirs__lazy", "value = 2", "value = 3"),
        ("theirs__lazy", "value = 2", 'value = 2\nmore = "In pixels."'),
        ("theirs__named", "size = 3", "size = 4"),
        ("beside", "B = 5", "B = 6"),
        ("theirs__approach", "import beside\n", "import theirs.other\n"),
    ],
)
def test_a_changed_number_in_any_reached_module_counts(package, tmp_path, name, old, new):
    changed(package, tmp_path, name, old, new, counts=True)


def changed(package, tmp_path, name, old, new, counts) -> None:
    before = hash_code("theirs.approach")
    assert hash_code("theirs.approach") == before
    text = (tmp_path / f"{name.replace('__', '/')}.py").read_text()
    assert old in text
    package(**{name: text.replace(old, new)})
    assert (hash_code("theirs.approach") != before) is counts


def test_a_module_that_moves_into_a_folder_stays_reached(package, tmp_path):
    package(theirs__folder__near="A = 1\n")
    (tmp_path / "theirs/near.py").unlink()
    text = (tmp_path / "theirs/approach.py").read_text()
    package(theirs__approach=text.replace("from theirs import near", "from theirs.folder import near"))
    assert "theirs.folder.near" in find_reached_modules("theirs.approach")


def test_relative_imports_and_those_for_type_checkers(package):
    package(
        theirs__relative="from . import near\nfrom .lazy import value\n",
        theirs__checked="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import theirs.other\n",
        theirs__run="if not TYPE_CHECKING:\n    import theirs.other\n",
        theirs__else="if TYPE_CHECKING:\n    import theirs.near\nelse:\n    import theirs.other\n",
        theirs__named="import importlib\nimportlib.import_module('theirs.other')\n",
    )
    assert {"theirs.near", "theirs.lazy"} <= set(find_reached_modules("theirs.relative"))
    assert "theirs.other" not in find_reached_modules("theirs.checked")
    for name in ("run", "else", "named"):
        assert "theirs.other" in find_reached_modules(f"theirs.{name}")
    assert "theirs.near" not in find_reached_modules("theirs.else")


def test_a_class_of_a_script_is_found(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from lungseg.system.hashing import find_reached_modules\n"
        "class Own: pass\n"
        "print(list(find_reached_modules(Own)))\n"
    )
    found = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert found.stdout == "['__main__', 'lungseg', 'lungseg.system', 'lungseg.system.errors', " + (
        "'lungseg.system.hashing', 'lungseg.system.plugins']\n"
    )


def test_what_is_installed_beside_a_plug_in_is_a_library(package, tmp_path, monkeypatch):
    monkeypatch.setattr(hashing.sysconfig, "get_paths", lambda: {"purelib": str(tmp_path)})
    assert "beside" not in find_reached_modules("theirs.approach")
    assert find_libraries("theirs.approach") == ["beside", "numpy"]


def test_a_class_stands_for_its_module():
    from lungseg.approaches.baselines import MeanMask

    assert hash_code(MeanMask) == hash_code("lungseg.approaches.baselines")
    with pytest.raises(InputError, match=r"lungseg\.nowhere.*no source file"):
        hash_code("lungseg.nowhere")


def test_values_are_hashed_by_their_json():
    assert hash_value({"a": 1, "b": [2, Path("x")]}) == hash_value({"b": [2, "x"], "a": 1})
    assert hash_value([1]) != hash_value([1.5])
