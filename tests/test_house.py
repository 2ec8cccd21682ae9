"""The rules of the house: which room may import from which, no circles, and no room or module too large."""

import ast
from pathlib import Path

import lungseg

ROOT = Path(lungseg.__file__).parent
MOST_LINES, MOST_MODULES = 350, 15
# A room is a folder of lungseg/, or a module beside them. Arrows go from a room to these and to no others.
ARROWS = {
    "__main__": {"cli", "system"},
    "cli": {"harness", "prediction", "report", "data", "results", "spec", "system"},
    "harness": {"timing", "approaches", "learning", "data", "scoring", "report", "results", "spec", "system"},
    "prediction": {"approaches", "learning", "data", "scoring", "results", "spec", "system"},
    "timing": {"approaches", "learning", "data", "spec", "system"},
    "approaches": {"learning", "data", "system"},
    "learning": {"data", "system"},
    "report": {"scoring", "results", "system"},
    "scoring": set(),
    "data": {"system"},
    "results": {"system"},
    "spec": {"system"},
    "system": set(),
}


def modules() -> dict[str, Path]:
    found = {}
    for file in sorted(ROOT.rglob("*.py")):
        name = ".".join((ROOT.name, *file.relative_to(ROOT).with_suffix("").parts))
        found[name.removesuffix(".__init__")] = file
    return found


MODULES = modules()


def imported(name: str) -> set[str]:
    """Modules of the package that a module names in an import, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
    ours = {module for module in found if module.partition(".")[0] == ROOT.name}
    assert ours <= set(MODULES), f"{name} imports {ours - set(MODULES)}, which isn't there"
    return ours


IMPORTS = {name: imported(name) for name in MODULES}


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def test_arrows_go_one_way():
    wrong = [
        f"{name} -> {other}"
        for name, others in IMPORTS.items()
        for other in others
        if room(name) != room(other) and room(other) and room(other) not in ARROWS[room(name)]
    ]
    assert not wrong


def test_the_rooms_themselves_are_no_circle():
    left = {name: set(others) for name, others in ARROWS.items()}
    while left:
        last = {name for name, others in left.items() if not others & set(left)}
        assert last, f"a circle among {sorted(left)}"
        left = {name: others for name, others in left.items() if name not in last}


def test_no_circle_between_files():
    left = {name: others - {name} for name, others in IMPORTS.items()}
    while left:
        last = {name for name, others in left.items() if not others & set(left)}
        assert last, f"a circle among {sorted(left)}"
        left = {name: others for name, others in left.items() if name not in last}


def test_a_module_has_one_subject_and_can_be_read_in_one_go():
    lines = {name: len(file.read_text("utf-8").splitlines()) for name, file in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_no_folder_holds_more_than_one_can_see_at_once():
    for folder in {file.parent for file in MODULES.values()}:
        names = [file.stem for file in folder.glob("*.py") if file.stem != "__init__"]
        assert len(names) <= MOST_MODULES, folder
