"""Rows that are trained on another dataset of the spec, or on few of the images."""

from itertools import pairwise

import pytest
from safetensors.torch import load_file

from lungseg.data.splits import SplitOptions, make_splits
from lungseg.harness.commands.evaluate_stored import evaluate_results
from lungseg.harness.folds import load_data
from lungseg.harness.leaks import audit_plan
from lungseg.harness.plan import make_plan
from lungseg.harness.run import benchmark
from lungseg.report.contents import list_further_contents, read_contents
from lungseg.report.figures.style import use_house_style
from lungseg.report.figures.trainings import draw_learning, draw_transfer
from lungseg.report.tables.trainings import make_training_sections
from lungseg.results import read_run, read_table
from lungseg.spec import read_spec
from lungseg.system.errors import InputError
from tests.tiny import HEAD, NO_TIMING

OTHERS = """
[[test_data]]
dataset = "phantom"
name = "others"
count = 20
size = 40
seed = 5
split = "random"
split_seed = 3
"""
ROWS = """
[[approach]]
use = "mean-mask"
name = "elsewhere"
size = 24
train_on = "others"
"""


@pytest.fixture
def read(tmp_path):
    """Reads a spec from its text."""

    def read_text(text, *changes):
        path = tmp_path / "spec.toml"
        path.write_text(text)
        return read_spec(path, [*NO_TIMING, *changes])

    return read_text


@pytest.fixture
def ran(read, tmp_path):
    """A finished run with a row that was trained elsewhere."""
    benchmark(read(HEAD.replace('label = "mean-mask"\n', "") + OTHERS + ROWS), tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.report
def test_a_row_is_trained_on_one_dataset_and_scored_on_all(ran, read):
    scores = read_table(ran, "scores")
    found = scores.groupby(["approach", "dataset"]).agg({"train_set": "first", "n_train": "first"})
    # 12 and 20 phantoms, of which .7 are for training.
    assert found.loc["mean-mask", "phantom"].tolist() == ["phantom", 9]
    assert found.loc["elsewhere", "phantom"].tolist() == ["others", 14]
    assert found.loc["elsewhere", "others"].tolist() == ["others", 14]
    others = load_data(read(HEAD + OTHERS)).further[0]
    (split,) = make_splits("random", list(others.samples.values()), SplitOptions(split_seed=3))
    assert set(scores[scores["dataset"] == "others"]["image_id"]) == set(split.test)
    run = read_run(ran)
    assert run["trained_on"][0]["ids"]["train"] == list(split.train)
    trained = [(trial["train_set"], trial["train"]) for trial in run["trials"]]
    assert trained == [("phantom", 9), ("others", 14)]
    labels = [entry["label"] for entry in run["approaches"]]
    assert labels == [f"Mean of the training masks, trained on {name}" for name in ("phantom", "others")]
    # By hand: the mean of the masks that were trained on is what the row predicts.
    by_hand = sum(others.samples[name].mask().mean() for name in split.train) / len(split.train)
    model = load_file(next((ran / "models" / "elsewhere").rglob("*.safetensors")))["fitted"]
    assert float(model.mean()) == pytest.approx(by_hand, abs=0.01)


def test_on_validation_the_other_test_sets_show_that_side_too(read):
    plan = make_plan(read(HEAD + OTHERS + ROWS, "evaluate_on=validation"))
    (split,) = make_splits("random", list(plan.further[0].samples.values()), SplitOptions(split_seed=3))
    for trial in plan.trials:
        assert {sample.id for sample in trial.fold.further[0].samples} == set(split.validation)


def test_training_images_of_the_other_dataset_are_audited(read, ran):
    # The same phantoms under another name and split: what one trains on is what the other tests.
    same = OTHERS.replace("count = 20\nsize = 40\nseed = 5", "count = 12\nsize = 48")
    plan = make_plan(read(HEAD + same + ROWS))
    with pytest.raises(InputError, match="stand on two sides"):
        audit_plan(plan)
    with pytest.raises(InputError, match="stand on two sides"):  # those of a stored model too
        evaluate_results(ran, "phantom", {"count": 20, "size": 40, "seed": 5}, ran / "again", "again")


def test_a_stored_row_is_evaluated_elsewhere(ran):
    evaluate_results(ran, "phantom", {"count": 3, "size": 40, "seed": 9}, ran.parent / "third", "third")
    scores = read_table(ran.parent / "third", "scores")
    assert scores.groupby("approach")["train_set"].first().to_dict() == {
        "mean-mask": "phantom",
        "elsewhere": "others",
    }


FEW = """
[[approach]]
use = "mean-mask"
name = "few"
size = 24
train_images = {count}
"""


def draw(read, count):
    plan = make_plan(read(HEAD + FEW.format(count=count)))
    trials = [trial for trial in plan.trials if trial.entry.name == "few"]
    return {trial.seed: {sample.id for sample in trial.fold.train} for trial in trials}, trials


def test_a_larger_number_takes_the_same_images_and_more(read):
    drawn = {count: draw(read, count)[0] for count in (2, 3, 5, 9)}
    for seed in (0, 1):
        sets = [drawn[count][seed] for count in (2, 3, 5, 9)]
        assert [len(each) for each in sets] == [2, 3, 5, 9]
        assert all(small < large for small, large in pairwise(sets))
    assert drawn[3][0] != drawn[3][1]  # each seed draws others, also where nothing else is random
    assert drawn[9][0] == drawn[9][1]


def test_validation_images_are_cut_in_proportion_and_keys_tell_draws_apart(read):
    whole = make_plan(read(HEAD)).trials[0].fold
    _, trials = draw(read, 4)
    assert len(whole.validation) == 1  # too few to be cut
    assert all(len(trial.fold.validation) == 1 for trial in trials)
    shown = [sample.id for sample in whole.evaluated]
    assert all([sample.id for sample in trial.fold.evaluated] == shown for trial in trials)
    assert len({trial.keys.fit for trial in trials}) == 2
    more = make_plan(read(HEAD + FEW.format(count=20), "data.count=60", "data.validation_share=0.2"))
    trial = next(trial for trial in more.trials if trial.entry.name == "few")
    sides = (len(trial.fold.train), len(trial.fold.validation))
    base = more.trials[0].fold
    assert sides == (20, round(20 / len(base.train) * len(base.validation)))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (ROWS, "train_on names 'others': use one of phantom"),
        (OTHERS.replace('split = "random"\nsplit_seed = 3', "") + ROWS, "give a .*a split"),
        (OTHERS.replace('split = "random"\n', ""), "has split_seed, but no split"),
        (OTHERS.replace('"random"\nsplit_seed = 3', '"kfold"'), "has not one fold"),
        (OTHERS.replace('"random"\nsplit_seed = 3', '"last-fifth"'), "has not one fold with test images"),
        (OTHERS.replace('"random"', '"rendom"'), "unknown split 'rendom'"),
        (OTHERS + ROWS + '[training_data]\ndataset = "phantom"\nseed = 7\n', "leave one of them out"),
        (FEW.format(count=10), "train_images is 10, and only 9 images"),
        (FEW.format(count=1), "train_images"),
    ],
)
def test_what_can_not_be_trained_is_refused(read, text, sentence):
    with pytest.raises(InputError, match=sentence):
        make_plan(read(HEAD + text))


def test_a_table_and_a_matrix_show_what_was_trained_on_what(ran):
    contents = read_contents(ran)
    further = list_further_contents(contents)
    (section,) = make_training_sections(contents, further)
    means = read_table(ran, "statistics").query("kind == 'mean' and metric == 'dice'")
    value = means.set_index(["approach", "dataset"])["value"]
    rows = {row[1]: row for row in section.table.rows}
    assert section.table.header[2:4] == ["Dice, phantom", "Dice, others"]
    assert rows["others"][0] == rows["phantom"][0] == "Mean of the training masks"
    assert rows["others"][2].startswith(f"{value['elsewhere', 'phantom']:.4f}")
    assert rows["phantom"][3].startswith(f"{value['mean-mask', 'others']:.4f}")
    with use_house_style():
        figure = draw_transfer(contents)
    panel = figure.axes[0]
    gap = panel.images[0].get_array()
    own = value["mean-mask", "phantom"]
    # Rows: trained on phantom, on others; columns: tested on these.
    assert gap[1, 0] == pytest.approx(value["elsewhere", "phantom"] - own)
    assert gap[0, 0] == gap[1, 1] == 0
    assert draw_learning(contents) is None


def test_a_table_and_a_curve_show_how_many_images_it_takes(read, tmp_path):
    rows = "".join(FEW.format(count=count).replace('"few"', f'"few-{count}"') for count in (2, 3, 5))
    benchmark(read(HEAD.replace('label = "mean-mask"\n', "") + rows), tmp_path / "out")
    contents = read_contents(tmp_path / "out")
    (section,) = make_training_sections(contents)
    assert section.table.header == ["Training images", "Mean of the training masks"]
    assert [row[0] for row in section.table.rows] == ["2", "3", "5", "9"]
    scores = read_table(tmp_path / "out", "scores").query("approach == 'few-3'")
    assert section.table.rows[1][1].startswith(f"{scores['dice'].mean():.4f}")
    with use_house_style():
        axes = draw_learning(contents).axes[0]
    line = axes.lines[0]
    assert list(line.get_xdata()) == [2, 3, 5, 9]
    dots = next(each for each in axes.lines[1:] if list(each.get_xdata()) == [3, 3])
    assert sorted(dots.get_ydata()) == pytest.approx(sorted(scores.groupby("seed")["dice"].mean()))
    assert draw_transfer(contents) is None
