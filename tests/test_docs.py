"""What README and docs name exists: links, files, commands with their options, and keys of a spec."""

import re
import subprocess
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import typer
from pydantic import BaseModel

import lungseg
from lungseg.approaches.registry import APPROACHES
from lungseg.cli import app
from lungseg.data.datasets.registry import DATASETS
from lungseg.data.splits import SplitOptions
from lungseg.results import TABLES
from lungseg.spec import Spec
from lungseg.system.plugins import load_class

ROOT = Path(lungseg.__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MADE = ("mine.toml", "dark.toml", "patients.csv", "my_")  # by the reader
ROOMS = ("lungseg/", "benchmarks/", "tests/", "docs/", "results/reference/", ".ci/")
SCRIPTS = {file.name for room in ("lungseg", "benchmarks") for file in (ROOT / room).rglob("*.py")}


def text_of(page: Path) -> str:
    """A page without its generated blocks."""
    return re.sub(r"<!-- (results:\S+) -->.*?<!-- /\1 -->", "", page.read_text("utf-8"), flags=re.S)


def code_of(page: Path) -> list[str]:
    """Words in back ticks, and the lines of fenced blocks that aren't Python or TOML."""
    text = text_of(page)
    fences = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    lines = [
        line.strip() for kind, block in fences if kind in ("", "sh", "bash") for line in block.splitlines()
    ]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return lines + inline


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def each_page(function):
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)(function)


@each_page
def test_links_lead_somewhere(page):
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        if not place.exists() or (anchor and anchor not in anchors(place)):
            wrong.append(target)
    assert not wrong


@each_page
def test_files_that_are_named_are_there(page):
    wrong = []
    for code in code_of(page):
        for word in re.findall(r"[\w./-]+", code):
            named = word.startswith(ROOMS) or re.fullmatch(r"[\w-]+\.(toml|py)", word)
            if not named or word.startswith(MADE) or "NAME" in word or word in (*SCRIPTS, "forest.toml"):
                continue
            places = [ROOT / word, ROOT / "benchmarks" / word, page.parent / word]
            wrong += [] if any(place.exists() for place in places) else [word]
    assert not wrong


def commands() -> dict[str, set[str]]:
    """The options of each command, as "data check" -> {"--set", ...}."""
    found = {}

    def look(command, name):
        for word, each in getattr(command, "commands", {}).items():
            look(each, f"{name} {word}".strip())
        found[name] = {option for each in command.params for option in each.opts} | {"--help"}

    look(typer.main.get_command(app), "")
    return found


@each_page
def test_commands_that_are_named_are_there(page):
    known = commands()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    wrong = []
    for code in code_of(page):
        for target in re.findall(r"(?:^|\s)make ([a-z]+)", code):
            wrong += [] if target in targets else [f"make {target}"]
        for module in re.findall(r"python -m ((?:lungseg|benchmarks)[\w.]*)", code):
            place = ROOT.joinpath(*module.split("."))
            wrong += [] if place.with_suffix(".py").exists() or (place / "__main__.py").exists() else [module]
        match = re.search(r"(?:^|/bin/|-m )lungseg(?: ([a-z]+(?: [a-z]+)?))?( .*)?$", code)
        if match and (match[1] or match[2]):
            words = (match[1] or "").split()
            name = next((n for n in (match[1] or "", *words[:1]) if n in known), None)
            options = re.findall(r"(?<!\w)--[a-z-]+", match[2] or "")
            wrong += [code] if name is None or not known[name] >= set(options) else []
    assert not wrong


def keys_of(model: type[BaseModel]) -> set[str]:
    """The keys of a table of a spec and of the tables in it."""
    found = set()
    for name, field in model.model_fields.items():
        found.add(name)
        parts = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for part in parts:
            inner = [part, *getattr(part, "__args__", ())]
            for each in inner:
                if isinstance(each, type) and issubclass(each, BaseModel):
                    found |= keys_of(each)
    return found


def known_keys() -> set[str]:
    from lungseg.approaches.base import Approach
    from lungseg.data.sample import Dataset

    found = keys_of(Spec) | keys_of(SplitOptions)
    for names, base, what in ((APPROACHES, Approach, "approach"), (DATASETS, Dataset, "dataset")):
        for name in names:
            found |= keys_of(load_class(name, names, base, what).Settings)
    return found


KEYS = known_keys()


def names_of_tables(values: dict) -> set[str]:
    found = set()
    for name, value in values.items():
        found.add(name)
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict) and name not in ("regressor_settings",):
                found |= names_of_tables(inner)
    return found


@each_page
def test_keys_that_are_named_are_keys_of_a_spec(page):
    wrong = []
    for code in code_of(page):
        for key in re.findall(r"^(\w[\w.]*) = \S", code):
            wrong += [] if key.split(".")[-1] in KEYS else [code]
        for change in re.findall(r"--set ([\w.-]+)=", code):
            wrong += [] if change.split(".")[-1] in KEYS or change == "KEY" else [code]
    for block in re.findall(r"^```toml\n(.*?)^```", text_of(page), re.M | re.S):
        wrong += sorted(names_of_tables(tomllib.loads(block)) - KEYS)
    assert not wrong


@each_page
def test_tables_of_results_that_are_named_are_there(page):
    known = {f"{name}.csv" for name in TABLES} | {"summary.csv", "table.csv", "predictions.csv", *MADE}
    named = {word for code in code_of(page) for word in re.findall(r"[\w-]+\.csv", code)}
    assert named <= known


@each_page
def test_variables_that_are_named_are_read(page):
    named = {word for code in code_of(page) for word in re.findall(r"LUNGSEG_[A-Z_]+", code)}
    code = "".join(file.read_text("utf-8") for file in (ROOT / "lungseg").rglob("*.py"))
    assert named <= set(re.findall(r"LUNGSEG_[A-Z_]+", code))


def test_the_readme_fits_on_three_screens_and_begins_with_the_answer():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1300
    assert len([line for line in text.splitlines()[:12] if line.startswith("| ")]) == 2 + 4
    assert len(re.findall("<!-- results:", text)) == 1


def test_the_answer_has_the_published_numbers():
    """Each Dice with its interval above the README's generated block is one of the table that it cites."""
    text = (ROOT / "README.md").read_text("utf-8").partition("<!-- results:")[0]
    rows = pd.read_csv(ROOT / "results" / "reference" / "cxr704-cpu" / "summary.csv")
    known = {
        f"{row.dice:.4f} [{row.dice_low:.4f}, {row.dice_high:.4f}]".replace("0.", ".")
        for row in rows.itertuples()
    }
    shown = re.findall(r"\| (\.\d+ \[.*?\]) \|", text)
    assert len(shown) == 4
    assert set(shown) <= known


def test_each_page_is_in_the_index_once():
    listed = re.findall(r"^- \[\S+\]\((\S+)\): ", (ROOT / "docs" / "README.md").read_text("utf-8"), re.M)
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert sorted(listed) == sorted(pages)


@pytest.mark.parametrize("name", ["CHANGELOG.md", "CONTRIBUTING.md"])
def test_it_is_short(name):
    assert len((ROOT / name).read_text("utf-8").splitlines()) <= 60


def test_the_citation_names_the_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    cited = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {project['version']}\n" in cited
    assert f"\nlicense: {project['license']}\n" in cited
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_no_path_of_a_machine_is_committed():
    pattern = r"(^|[^A-Za-z0-9_.])/(work|farm|tmp|root|home)/"
    found = subprocess.run(
        [
            "git",
            "-C",
            ROOT,
            "grep",
            "-nE",
            pattern,
            "--",
            "*.md",
            "*.toml",
            "*.json",
            "lungseg",
            "benchmarks",
        ],
        capture_output=True,
        text=True,
    )
    assert found.returncode in (1, 128), found.stdout[:500]
