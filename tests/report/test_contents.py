"""What the report reads: approaches by their labels, files by their names."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lungseg.report.figures.xrays.cases import _choose_approaches, _choose_cases, _rank_images
from lungseg.report.figures.xrays.stored import read_features, read_prediction
from lungseg.report.findings import collect_findings
from lungseg.report.tables.summary import write_tables
from lungseg.results import finish_run
from lungseg.system.files import read_json
from lungseg.system.stored import SEAL
from tests.report.results_directory import read_edited


def test_people_read_labels_and_files_keep_names(results: Path) -> None:
    record = read_json(results / "run.json")
    entries = [
        entry | {"label": "A · Pixels, 48 px"} if entry["name"] == "pixels" else entry
        for entry in record["approaches"]
    ]
    failed = [{"approach": "pixels", "fold": 0, "seed": 9, "reason": "the disk is full"}]
    kept = {key: value for key, value in record.items() if key not in (SEAL, "tables")}
    finish_run(results, kept | {"approaches": entries, "failed": failed})
    contents = read_edited(results)
    assert contents.names[:3] == ["mean-mask", "A · Pixels, 48 px", "good_net"]
    assert "A · Pixels, 48 px" in set(contents.statistics["other"]) | set(contents.statistics["approach"])
    assert "pixels" not in set(contents.statistics["other"]) | set(contents.scores["approach"])
    assert read_prediction(contents, "A · Pixels, 48 px", "img_1", (48, 48)) is not None
    assert read_features(contents)[0] == "A · Pixels, 48 px"
    shown = _choose_approaches(contents)
    assert "A · Pixels, 48 px" in shown
    assert _choose_cases(contents, _rank_images(contents), ["A · Pixels, 48 px"])
    write_tables(collect_findings(contents))
    text = (results / "summary.md").read_text()
    assert "| A · Pixels, 48 px | random weights |" in text
    assert "A · Pixels, 48 px has no row, because a trial of it failed: the disk is full" in text
    assert "Names in the spec and in all files: pixels (A · Pixels, 48 px)." in text
    assert "pixels" in set(pd.read_csv(results / "summary.csv")["approach"])
