import numpy as np
import pandas as pd
import pytest

from benchmarks.studies.study import write_study
from lungseg.system.errors import InputError


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {"tool": ["ours", "other | two"], "n": [28, 141], "share": [1 / 3, np.nan], "said": ["93 %", None]}
    )


def test_a_study_can_be_read_back_and_read_by_people(tmp_path):
    folder = tmp_path / "new" / "study"
    page = write_study(folder, "A study", table(), ["Read from /home/somebody/data, 3 times."])
    assert (folder / "table.md").read_text(encoding="utf-8") == page
    assert page.startswith("# A study\n\n| tool | n | share | said |\n| :-- | --: | --: | :-- |\n")
    assert "| ours | 28 | 0.3333 | 93 % |" in page
    assert r"| other \| two | 141 | – | – |" in page
    back = pd.read_csv(folder / "table.csv")
    assert back["share"][0] == pytest.approx(1 / 3, abs=1e-9)
    assert np.isnan(back["share"][1])


def test_a_page_says_what_it_was_measured_on_and_no_folder_of_this_machine(tmp_path):
    page = write_study(tmp_path, "Of /srv/secret/place", table(), ["From /srv/secret/other."])
    assert "secret" not in page
    assert f"numpy {np.__version__}" in page
    assert "cores" in page


def test_a_study_replaces_a_former_one_and_leaves_no_other_file(tmp_path):
    write_study(tmp_path, "First", table(), [])
    write_study(tmp_path, "Second", table(), [])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["table.csv", "table.md"]
    assert "Second" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_a_folder_that_is_a_file_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="file"):
        write_study(tmp_path / "file", "A study", table(), [])
