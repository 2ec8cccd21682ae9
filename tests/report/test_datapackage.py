"""datapackage.json says of each CSV file what is really in it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from lungseg.report.contents import read_contents
from lungseg.report.datapackage import KEYS, write_datapackage
from lungseg.report.numbers.quality import MAIN_COLUMNS
from lungseg.results import TABLES, read_table
from tests.report.results_directory import read_edited, write_summary

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
PATTERNS = {
    "integer": r"-?\d+",
    "number": r"-?\d+(\.\d+)?(e[+-]?\d+)?",
    "boolean": "True|False",
    "string": ".+",
}


@pytest.fixture(scope="module", params=["tiny", "quick", "phantom-to-real"])
def described(
    request: pytest.FixtureRequest, written: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A results directory with new tables: a synthetic and a published one, and one with two test sets."""
    source = written if request.param == "tiny" else REFERENCE / request.param
    directory = tmp_path_factory.mktemp("described") / source.name
    shutil.copytree(source, directory, ignore=shutil.ignore_patterns("figures", "summary*"))
    write_summary(directory)
    return directory


def read_package(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "datapackage.json").read_text("utf-8"))


def test_names_and_types_are_those_of_the_files(described: Path) -> None:
    resources = read_package(described)["resources"]
    assert {found["path"] for found in resources} == {path.name for path in described.glob("*.csv")}
    assert {found["name"] for found in resources} == {*TABLES, "summary"}
    for found in resources:
        with (described / found["path"]).open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        columns = MAIN_COLUMNS if found["name"] == "summary" else TABLES[found["name"]]
        published = described.name in ("quick", "phantom-to-real")
        assert header == columns[: len(header) if published else None]  # an older version knew fewer columns
        if found["name"] != "summary":
            assert list(read_table(described, found["name"]).columns) == columns
        fields = found["schema"]["fields"]
        assert [field["name"] for field in fields] == header
        assert rows or found["name"] in ("timings", "timing_pairs")  # switched off in one of the specs
        for place, field in enumerate(fields):
            values = {row[place] for row in rows} - {""}
            wrong = {value for value in values if not re.fullmatch(PATTERNS[field["type"]], value)}
            assert not wrong, f"{found['path']}: {field}"
            assert field["description"].rstrip(".")
        if found["name"] in KEYS:
            places = [header.index(name) for name in found["schema"]["primaryKey"]]
            keys = [tuple(row[place] for place in places) for row in rows]
            assert len(set(keys)) == len(keys)
            assert all(all(key) for key in keys)


def test_texts_and_units_are_those_of_the_docs(described: Path) -> None:
    tables = {found["name"]: found["schema"]["fields"] for found in read_package(described)["resources"]}
    fields = {table: {field["name"]: field for field in found} for table, found in tables.items()}
    assert fields["training"]["seconds"] == {
        "name": "seconds",
        "type": "number",
        "description": "Time of the training, without scoring.",
        "unit": "s",
    }
    assert fields["scores"]["precision"]["type"] == "number"
    assert fields["timings"]["precision"]["type"] == "string"
    assert fields["timings"]["copies"]["type"] == "boolean"
    assert fields["scores"]["dice_left"]["description"].endswith(". Empty: the true mask has no such lung.")


def test_the_package_has_date_length_and_hash_and_is_the_same_again(described: Path) -> None:
    package = read_package(described)
    run = json.loads((described / "run.json").read_text("utf-8"))
    assert package["name"] == run["name"]
    assert package["created"] == run["finished"]
    for found in package["resources"]:
        data = (described / found["path"]).read_bytes()
        assert (found["bytes"], found["hash"]) == (len(data), f"sha256:{sha256(data).hexdigest()}")
    first = (described / "datapackage.json").read_bytes()
    (described / "datapackage.json").unlink()
    write_datapackage(read_contents(described))
    assert (described / "datapackage.json").read_bytes() == first


def test_a_file_that_is_missing_is_left_out(results: Path) -> None:
    (results / "importance.csv").unlink()
    write_datapackage(read_edited(results))
    names = [found["name"] for found in read_package(results)["resources"]]
    assert "scores" in names
    assert not {"importance", "summary"} & {*names}
