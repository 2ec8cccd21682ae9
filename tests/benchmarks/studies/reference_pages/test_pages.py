"""docs/spec.md and docs/results.md are what their generator writes, and have every key and every column."""

import re

import pandas as pd
import pytest
from pydantic import BaseModel

from benchmarks.studies.reference_pages import results_page
from benchmarks.studies.reference_pages.__main__ import DOCS, PAGES
from benchmarks.studies.reference_pages.markdown import describe_type, make_table
from benchmarks.studies.reference_pages.spec_page import SPLITS
from lungseg.approaches.base import Approach
from lungseg.approaches.registry import APPROACHES
from lungseg.data.datasets.registry import DATASETS
from lungseg.data.sample import Dataset
from lungseg.data.splits import RULES, SplitOptions
from lungseg.harness.plan import make_plan
from lungseg.report.columns import DESCRIPTIONS
from lungseg.report.figures.all import FIGURES
from lungseg.results import FILES
from lungseg.spec import Spec, read_spec
from lungseg.system.plugins import load_class

ROOT = DOCS.parent
PUBLISHED = [
    path
    for name in ("quick", "cxr704-cpu", "originals")
    for path in sorted((ROOT / "results/reference" / name).glob("*.csv"))
]


def models() -> list[type[BaseModel]]:
    classes = [load_class(name, APPROACHES, Approach, "approach") for name in APPROACHES]
    classes += [load_class(name, DATASETS, Dataset, "dataset") for name in DATASETS]
    return [Spec, SplitOptions, *dict.fromkeys(found.Settings for found in classes)]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_its_generator_writes(name):
    same = (DOCS / name).read_text("utf-8") == PAGES[name]()
    assert same, "run: python -m benchmarks.studies.reference_pages"


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__qualname__)
def test_each_key_has_a_description_and_a_row(model):
    schema = model.model_json_schema()
    page = (DOCS / "spec.md").read_text("utf-8")
    for table in (schema, *schema.get("$defs", {}).values()):
        for key, found in table["properties"].items():
            text = " ".join(found.get("description", "").split())
            assert text.endswith("."), f"{table['title']}.{key}: write a sentence below it"
            assert re.search(rf"^\| `{key}` \| .* \| {re.escape(text)} \|$", page, re.M)


def test_each_column_file_rule_and_figure_has_a_description_and_nothing_else_has():
    assert {name: set(columns) for name, columns in results_page.COLUMNS.items()} == {
        name: set(columns) for name, columns in DESCRIPTIONS.items()
    }
    assert set(results_page.FILE_TEXTS) == set(FILES)
    assert set(results_page.CAPTIONS) == set(FIGURES)
    assert set(SPLITS) == set(RULES)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_published_cells_are_empty_only_where_the_page_says_so(path):
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    # New columns are the last ones: an older version wrote a table without them.
    assert list(frame) == list(results_page.COLUMNS[path.stem])[: len(frame.columns)]
    empty = [name for name in frame if (frame[name] == "").any()]
    assert [name for name in empty if not DESCRIPTIONS[path.stem][name][2]] == []


def test_the_lines_that_load_a_table_run(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(results_page.PANDAS)
    assert re.search(r"^mean-mask +0\.\d+$", capsys.readouterr().out, re.M)


def test_the_shortest_spec_and_its_changes_can_be_used(tmp_path):
    page = (DOCS / "spec.md").read_text("utf-8")
    spec = tmp_path / "mine.toml"
    spec.write_text(re.search(r"```toml\n(.*?)```", page, re.S)[1])
    changes = re.findall(r"^\| .* \| `--set (\S+)` \|$", page, re.M)
    assert len(changes) == 4
    plan = make_plan(read_spec(spec, changes))
    assert (len(plan.folds), plan.entries[0].settings.size, plan.entries[0].settings.boosting.rounds) == (
        5,
        64,
        50,
    )


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "exclusiveMaximum": 2001}, "whole number from 1 to 2,000"),
        ({"type": "integer", "exclusiveMinimum": 0}, "whole number of at least 1"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number above 0 up to 1"),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "number of at least 0 and below 1"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text"),
        ({"enum": ["a", "b", 3]}, '`"a"`, `"b"` or `3`'),
        ({"type": "array", "minItems": 1, "items": {"type": "number"}}, "list of one or more numbers"),
        (
            {"type": "array", "prefixItems": [{"type": "number", "minimum": 0}] * 2},
            "list of two numbers of at least 0",
        ),
        ({"type": "array", "items": {"const": "a"}}, 'list, each `"a"`'),
        ({"type": "array", "items": {"$ref": "#"}}, "list of tables"),
    ],
)
def test_types_in_words(schema, words):
    assert describe_type(schema) == words


def test_a_cell_with_a_bar_or_a_line_break_stays_one_cell():
    assert make_table(["a", "b"], [["x | y", "two\nlines"]]).splitlines()[2] == r"| x \| y | two lines |"
