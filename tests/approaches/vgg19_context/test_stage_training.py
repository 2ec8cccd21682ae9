import numpy as np
import pytest
import torch

from lungseg.approaches.vgg19_context import resumable_fit as module
from lungseg.approaches.vgg19_context.augmented_images import (
    VALIDATION,
    AugmentedImages,
    assign_folds,
    read_augmented_images,
)
from lungseg.approaches.vgg19_context.code_tables import CodeTables, choose_pixels, fit_bins, write_tables
from lungseg.approaches.vgg19_context.context_planes import compute_context_planes
from lungseg.approaches.vgg19_context.image_planes import ImagePlanes
from lungseg.approaches.vgg19_context.resumable_fit import ResumableFit
from lungseg.approaches.vgg19_context.stage_models import make_stage_model
from lungseg.approaches.vgg19_context.stage_training import (
    StageRows,
    choose_training_cases,
    make_stage_rows,
    measure_losses,
    predict_out_of_fold,
)
from lungseg.learning.trees.bins import Bins

CHANGED = 1  # the training image whose mask a test changes


@pytest.fixture
def grey(small):
    """Settings without the network: leaks don't depend on which planes there are, and it is quicker."""
    return lambda **values: small(features=False, **values)


@pytest.fixture
def cases(discs, grey, tmp_path) -> AugmentedImages:
    return read_augmented_images(tmp_path / "cases", discs(6), discs(2, seed=5), grey(), seed=0)


@pytest.fixture
def other_mask(cases) -> AugmentedImages:
    """The same cases but for the masks of one training image and of its copies."""
    masks = cases.masks.clone()
    own = cases.groups == CHANGED
    masks[own] = masks[own].roll(8, 2)
    return AugmentedImages(cases.images, masks, cases.groups, cases.is_copy)


@pytest.fixture
def tables(cases, grey, runtime, tmp_path) -> CodeTables:
    settings = grey()
    base = ImagePlanes(settings, runtime)
    bins = fit_bins(base, cases, np.random.default_rng(0))
    fine = choose_pixels(cases, settings.grid, settings, 0, settings.contexts)
    write_tables(tmp_path / "tables", base, cases, fine, bins, lambda done, total: None)
    return CodeTables(tmp_path / "tables")


def begun(settings, runtime, fit_context, cases: AugmentedImages) -> ResumableFit:
    """A fit whose tables are made."""
    fitting = ResumableFit(settings, runtime, fit_context)
    fitting.cases = cases
    fitting.make_tables(ImagePlanes(settings, runtime))
    return fitting


def some_maps(cases: AugmentedImages, count: int) -> list[torch.Tensor]:
    """Earlier maps of all cases, the same whatever their masks."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(len(cases), 1, 16, 16, generator=generator) for _ in range(count)]


def test_a_model_learns_from_all_folds_but_its_own():
    fold = torch.tensor([0, 1, 2, 0, VALIDATION, 2])
    found = choose_training_cases(fold, only_all=False)
    assert {name: np.flatnonzero(chosen).tolist() for name, chosen in found.items()} == {
        0: [1, 2, 5],
        1: [0, 2, 3, 5],
        2: [0, 1, 3],
        VALIDATION: [0, 1, 2, 3, 5],
    }
    (last,) = choose_training_cases(fold, only_all=True).items()
    assert last[0] == VALIDATION
    assert last[1].tolist() == [True, True, True, True, False, True]


def test_rows_have_the_codes_of_the_earlier_maps_at_their_pixels(cases, tables, grey):
    earlier = some_maps(cases, 3)
    choice = choose_pixels(cases, 16, grey(), 0, 0)
    rows = make_stage_rows(tables, cases, choice, earlier, 16, last=False, seed=0)
    own, context = rows.tables
    planes = compute_context_planes(earlier, 16)
    assert context.shape == (len(choice.case), planes.shape[1])
    assert len(rows.bins) == own.shape[1] + context.shape[1]
    for row in (0, 333, len(choice.case) - 1):
        index = int(choice.case[row])
        pixel = int(choice.pixels[index][row - choice.find_rows(index).start])
        expected = rows.context_bins.encode(planes[index].flatten(1)[:, pixel][None])[0]
        np.testing.assert_array_equal(context[row], expected)
        np.testing.assert_array_equal(own[row], tables.coarse[index * 256 + pixel])


@pytest.fixture
def maps_of_stage(tables, grey, runtime, new_fit_context):
    """Held-out maps of one stage of a set of cases, on given earlier maps."""

    def make(cases: AugmentedImages, earlier: list[torch.Tensor], folds: int = 2) -> torch.Tensor:
        choice = choose_pixels(cases, 16, grey(), 0, 0)
        rows = make_stage_rows(tables, cases, choice, earlier, 16, last=False, seed=0)
        fold, models = assign_folds(cases.groups, folds, 0), {}
        held = ~cases.is_training.numpy()
        for name, chosen in choose_training_cases(fold, only_all=False).items():
            models[name] = make_stage_model(grey(), runtime, last=True)
            models[name].fit(rows.select(chosen), rows.select(held), rows.bins, new_fit_context(), threads=1)
        return predict_out_of_fold(tables, rows, models, fold.numpy(), earlier, 16, lambda done, total: None)

    return make


@pytest.mark.parametrize("earlier", [0, 1, 2])
def test_given_the_earlier_maps_no_case_has_part_in_its_own(earlier, cases, other_mask, maps_of_stage):
    before, after = (maps_of_stage(each, some_maps(cases, earlier)) for each in (cases, other_mask))
    fold = assign_folds(cases.groups, 2, 0)
    same_fold = fold == fold[CHANGED]
    assert torch.equal(before[same_fold], after[same_fold])
    others = (before - after)[~same_fold].abs().amax((1, 2, 3))
    assert others.min() > 0.01  # who is not in its fold, and validation images, do learn from it


@pytest.mark.parametrize(("contexts", "folds"), [(2, 2), (1, 3)])
def test_every_map_of_a_fit_is_of_a_model_without_the_group(
    contexts, folds, cases, grey, runtime, new_fit_context, monkeypatch
):
    stages = []

    def spied(tables, rows, models, fold, *rest):
        stages.append((models, fold))
        return predict_out_of_fold(tables, rows, models, fold, *rest)

    learnt_from = {}
    select = StageRows.select

    def noted(rows, chosen):
        coded = select(rows, chosen)
        learnt_from[id(coded.rows)] = (coded, set(np.unique(rows.choice.case[coded.rows]).tolist()))
        return coded

    fitted = {}
    model_class = type(make_stage_model(grey(), runtime, last=True))
    fit = model_class.fit

    def fit_noted(model, rows, *rest):
        fitted[id(model)] = learnt_from[id(rows.rows)][1]
        fit(model, rows, *rest)

    monkeypatch.setattr(module, "predict_out_of_fold", spied)
    monkeypatch.setattr(StageRows, "select", noted)
    monkeypatch.setattr(model_class, "fit", fit_noted)
    settings = grey(contexts=contexts, folds=folds)
    fitting = begun(settings, runtime, new_fit_context(), cases)
    for index in range(len(fitting.grids)):
        fitting.fit_stage(index)
    assert len(stages) == contexts
    for models, fold in stages:
        for index, group in enumerate(cases.groups.tolist()):
            seen = fitted[id(models[int(fold[index])])]
            assert seen
            assert group not in cases.groups[sorted(seen)].tolist()  # also none of the group's copies
            assert all(cases.is_training[place] for place in seen)


@pytest.mark.parametrize("prior", [False, True])
def test_an_images_mask_has_no_part_in_the_first_map_of_itself(
    prior, cases, other_mask, grey, runtime, new_fit_context
):
    """The first map alone: what later models learn from are maps of others, which this mask had part in."""
    settings, codes, first = grey(shape_prior=prior), [], []
    for name, each in (("before", cases), ("after", other_mask)):
        fit_context = new_fit_context(folder=name)
        fitting = begun(settings, runtime, fit_context, each)
        fitting.fit_stage(0)
        codes.append(np.load(fit_context.checkpoints / "tables" / "coarse.npy"))
        first.append(fitting.earlier[0])
    np.testing.assert_array_equal(*codes)  # no mask is in the features
    fold = assign_folds(cases.groups, settings.folds, 0)
    change = (first[0] - first[1]).abs().amax((1, 2, 3))
    if prior:  # a closed form of all cases, so a rounding error is left
        assert change[cases.groups == CHANGED].max() < 1e-6
        assert change[cases.groups != CHANGED].min() > 1e-4
    else:
        assert (change[fold == fold[CHANGED]] == 0).all()
        assert change[fold != fold[CHANGED]].min() > 0.01


def test_validation_masks_have_no_part_in_any_map(discs, grey, runtime, new_fit_context, tmp_path):
    settings, fits = grey(), []
    train, held, other = discs(4), discs(2, seed=5), discs(2, seed=6)
    for sample, mask_of in zip(other, held, strict=True):
        sample._image = mask_of.image()
    for name, validation in (("one", held), ("two", other)):
        cases = read_augmented_images(tmp_path / name, train, validation, settings, seed=0)
        fitting = begun(settings, runtime, new_fit_context(folder=f"{name}-fit"), cases)
        records = [fitting.fit_stage(index)[1] for index in range(2)]
        fits.append((fitting.earlier, records))
    for one, two in zip(fits[0][0], fits[1][0], strict=True):
        assert torch.equal(one, two)
    assert fits[0][1][1]["train_loss"] == fits[1][1][1]["train_loss"]
    assert fits[0][1][1]["validation_loss"] != fits[1][1][1]["validation_loss"]


class Constant:
    """A model that predicts the same everywhere."""

    def predict_codes(self, codes: np.ndarray) -> np.ndarray:
        return np.full(len(codes), 0.75, np.float32)


def test_a_stage_is_judged_apart_on_what_it_learnt_from_and_on_what_is_held(cases, tables, grey):
    rows = make_stage_rows(tables, cases, choose_pixels(cases, 16, grey(), 0, 0), [], 16, last=False, seed=0)
    record = measure_losses(Constant(), rows, cases)
    learnt = cases.is_training.numpy()[rows.choice.case]
    for side, own in (("train", learnt), ("validation", ~learnt)):
        targets = rows.choice.targets[own]
        assert record[f"{side}_loss"] == pytest.approx(np.mean((targets - 0.75) ** 2), rel=1e-5)
        assert record[f"{side}_accuracy"] == pytest.approx(np.mean(targets >= 0.5), rel=1e-5)


def test_maps_of_each_fold_are_of_its_model_and_lie_between_0_and_1(cases, tables, grey):
    class Named(Constant):
        def __init__(self, value):
            self.value = value

        def predict_codes(self, codes):
            return np.full(len(codes), self.value, np.float32)

    fold = assign_folds(cases.groups, 2, 0).numpy()
    rows = StageRows([tables.coarse], tables.bins, None, choose_pixels(cases, 16, grey(), 0, 0))
    models = {0: Named(-0.2), 1: Named(0.4), VALIDATION: Named(1.3)}
    maps = predict_out_of_fold(tables, rows, models, fold, [], 16, lambda done, total: None)
    for name, value in ((0, 0.0), (1, np.float32(0.4)), (VALIDATION, 1.0)):
        assert (maps[fold == name] == value).all()


def test_context_columns_are_binned_by_their_own_edges(cases, tables, grey):
    rows = make_stage_rows(
        tables, cases, choose_pixels(cases, 16, grey(), 0, 0), some_maps(cases, 1), 16, last=False, seed=0
    )
    joined = Bins.join([tables.bins, rows.context_bins])
    assert all(map(np.array_equal, rows.bins.edges, joined.edges))
