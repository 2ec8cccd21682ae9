import lightgbm
import numpy as np
import pytest
import torch

from lungseg.learning.trees.bins import Bins
from lungseg.learning.trees.table import CodeWriter, open_codes
from lungseg.learning.trees.training import CodedRows, boost, train_on_codes
from lungseg.system.errors import InputError

PARAMETERS = {"num_leaves": 15, "learning_rate": 0.2, "min_data_in_leaf": 10, "num_threads": 1}


@pytest.fixture
def features() -> np.ndarray:
    """Columns of all sorts: dense, mostly zero, constant, few values, tiny, huge, far apart."""
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 1, (4000, 9)).astype(np.float32)
    rows[:, 1] = np.maximum(rows[:, 1] - 1, 0)
    rows[:, 2] = 7
    rows[:, 3] = rng.integers(0, 3, 4000)
    rows[:, 4] *= np.float32(1e-35)  # LightGBM takes the smaller two thirds for zero
    rows[:, 5] *= np.float32(5e37)
    rows[:, 6] = np.exp(8 * rows[:, 6])
    rows[:, 7] = np.nextafter(np.float32(1), np.float32(2)) - (rows[:, 7] > 0) * np.float32(2**-23)
    rows[:, 8] = np.where(rows[:, 8] > 2, 3e38, -3e38)
    return rows


@pytest.fixture
def targets(features) -> np.ndarray:
    raised = features[:, 0] + features[:, 1] * (features[:, 3] - 1) + (features[:, 6] > 2)
    return (1 / (1 + np.exp(-3 * raised))).astype(np.float32)


def test_a_code_is_the_number_of_edges_below_the_value(features):
    bins = Bins.from_sample(features[:1500])
    codes = bins.encode(features)
    assert codes.dtype == np.uint8
    for feature, edges in enumerate(bins.edges):
        values = np.concatenate([features[:, feature], edges, np.nextafter(edges, np.float32(np.inf))])
        own = Bins((edges,), bins.lowest[:1], bins.highest[:1]).encode(values[:, None])[:, 0]
        np.testing.assert_array_equal(own, (values[:, None] > edges).sum(axis=1))
        np.testing.assert_array_equal(own[: len(features)], codes[:, feature])


def test_tensors_of_maps_get_the_codes_of_their_rows(features):
    bins = Bins.from_sample(features)
    maps = torch.from_numpy(features).T.contiguous()
    assert torch.equal(bins.encode(maps.T), torch.from_numpy(bins.encode(features)))


def test_edges_by_hand():
    few = np.array([[0], [0], [0], [1], [4]], np.float32)
    assert Bins.from_sample(few).edges[0].tolist() == [0.5, 2.5]
    even = np.arange(100, dtype=np.float32)[:, None]
    assert Bins.from_sample(even, 4).edges[0].tolist() == [24.5, 49.5, 74.5]
    # 60 zeros fill one bin of three; the 40 other values share the other two.
    heavy = np.concatenate([np.zeros(60), np.arange(1, 41)]).astype(np.float32)[:, None]
    assert Bins.from_sample(heavy, 3).edges[0].tolist() == [0.5, 20.5]


def test_constant_and_coarse_features_get_fewer_bins(features):
    counts = [len(edges) + 1 for edges in Bins.from_sample(features).edges]
    assert counts[2:4] == [1, 3]
    assert counts[7:] == [2, 2]
    assert max(counts) == 255
    assert counts[1] > 250  # 84 % of zeros leave the other bins to what isn't zero


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(features, bad):
    bins = Bins.from_sample(features)
    features[17, 4] = bad
    for use in (Bins.from_sample, bins.encode):
        with pytest.raises(InputError, match="NaN or infinite"):
            use(features)


def test_tables_of_another_shape_or_type_are_refused(features, targets):
    bins = Bins.from_sample(features)
    for count in (1, 256):
        with pytest.raises(ValueError, match="between 2 and 255 fit"):
            Bins.from_sample(features, count)
    for rows in (features.astype(np.float64), features[0], features[:0]):
        with pytest.raises(ValueError, match="not float32 S x F"):
            Bins.from_sample(rows)
    for rows in (features.astype(np.float64), features[0], features[:, :3]):
        with pytest.raises(ValueError, match="not float32 N x 9"):
            bins.encode(rows)
    with pytest.raises(ValueError, match="tables of 3 columns, but 9 features"):
        boost(CodedRows([bins.encode(features)[:, :3]], targets), bins, PARAMETERS, 3)


def test_bins_are_stored_whole_and_damage_is_noticed(features, tmp_path):
    bins = Bins.from_sample(features)
    path = tmp_path / "bins.npz"
    bins.save(path)
    loaded = Bins.load(path)
    np.testing.assert_array_equal(loaded.encode(features), bins.encode(features))
    np.testing.assert_array_equal(loaded.highest, features.max(axis=0))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"bins\.npz is missing or damaged"):
        Bins.load(path)
    np.savez(path, edges=np.float32([2, 1]), counts=[2], lowest=np.float32([0]), highest=np.float32([3]))
    with pytest.raises(InputError, match=r"bins\.npz holds no bins"):
        Bins.load(path)


def test_a_table_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "codes.npy"
    codes = np.random.default_rng(0).integers(0, 255, (10, 3)).astype(np.uint8)
    with pytest.raises(KeyboardInterrupt), CodeWriter(path, 10, 3) as table:  # noqa: PT012
        table.write(codes[:6])
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="6 rows for a table of 10"), CodeWriter(path, 10, 3) as table:
        table.write(codes[:6])
    assert list(tmp_path.iterdir()) == []
    with CodeWriter(path, 10, 3) as table:
        table.write(codes[:6])
        table.write(codes[6:])
    np.testing.assert_array_equal(open_codes(path), codes)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"codes\.npy is missing or damaged"):
        open_codes(path)
    np.save(path, codes.astype(np.float32))
    with pytest.raises(InputError, match=r"codes\.npy holds no table of codes"):
        open_codes(path)


def test_the_fitted_model_takes_the_same_way_on_values_as_on_codes(features, targets):
    bins = Bins.from_sample(features[:1500])
    codes = bins.encode(features)
    on_codes, start = boost(CodedRows([codes], targets), bins, PARAMETERS, 20)
    on_values = train_on_codes(CodedRows([codes], targets), bins, PARAMETERS, 20)
    as_float = codes.astype(np.float32)
    # Also on values next to the edges, where a rounded threshold would send a row the other way.
    near = features.copy()
    for feature, edges in enumerate(bins.edges):
        if len(edges):
            picked = np.random.default_rng(feature).choice(edges, len(near))
            near[:, feature] = np.where(
                np.arange(len(near)) % 2, picked, np.nextafter(picked, np.float32(9e37))
            )
    for rows, coded in ((features, as_float), (near, bins.encode(near).astype(np.float32))):
        np.testing.assert_array_equal(
            on_values.predict(rows, pred_leaf=True), on_codes.predict(coded, pred_leaf=True)
        )
        np.testing.assert_allclose(
            on_values.predict(rows), on_codes.predict(coded) + start, rtol=0, atol=1e-12
        )
    assert np.mean((on_values.predict(features) - targets) ** 2) < 0.1 * targets.var()
    text = on_values.model_to_string()
    assert lightgbm.Booster(model_str=text).predict(features).tolist() == on_values.predict(features).tolist()
    infos = on_values.dump_model()["feature_infos"]
    assert "Column_2" not in infos  # constant
    assert infos["Column_3"] == {"min_value": 0, "max_value": 2, "values": []}


def test_it_learns_as_well_as_lightgbm_on_the_values(features, targets):
    bins = Bins.from_sample(features)
    ours = train_on_codes(CodedRows([bins.encode(features)], targets), bins, PARAMETERS, 20)
    plain = {**PARAMETERS, "objective": "regression", "verbosity": -1}
    theirs = lightgbm.train(plain, lightgbm.Dataset(features, targets), 20)
    losses = [np.mean((model.predict(features) - targets) ** 2) for model in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_order_threads_and_the_cut_into_tables_dont_change_a_tree(features, targets):
    features[:, 5] = features[:, 0]  # splits of the two are the same: rounding must not choose
    bins = Bins.from_sample(features)
    codes = bins.encode(features)
    one = train_on_codes(CodedRows([codes], targets), bins, PARAMETERS, 20)
    order = np.random.default_rng(1).permutation(len(codes))
    cut = [codes[:, :4], codes[:, 4:]]
    joined = Bins.join(
        [Bins(bins.edges[part], bins.lowest[part], bins.highest[part]) for part in (slice(4), slice(4, 9))]
    )
    two = train_on_codes(CodedRows(cut, targets, order), joined, {**PARAMETERS, "num_threads": 2}, 20)
    np.testing.assert_array_equal(one.predict(features), two.predict(features))


def test_a_subset_of_rows_is_what_is_learnt_from(features, targets, tmp_path):
    bins = Bins.from_sample(features)
    path = tmp_path / "codes.npy"
    with CodeWriter(path, *features.shape) as table:
        table.write(bins.encode(features))
    codes, chosen = open_codes(path), np.arange(len(targets)) % 5 > 0
    copied = train_on_codes(CodedRows([np.array(codes[chosen])], targets[chosen]), bins, PARAMETERS, 15)
    for rows in (chosen, np.flatnonzero(chosen)):
        fitted = train_on_codes(CodedRows([codes], targets, rows), bins, PARAMETERS, 15)
        np.testing.assert_array_equal(fitted.predict(features), copied.predict(features))


def test_a_model_without_any_split_predicts_the_mean(features, targets):
    bins = Bins.from_sample(features)
    coded = CodedRows([bins.encode(features)], targets)
    fitted = train_on_codes(coded, bins, {**PARAMETERS, "min_data_in_leaf": 3000}, 3)
    np.testing.assert_allclose(fitted.predict(features), targets.mean(), atol=2e-6)


def test_features_that_are_all_constant_are_refused(features, targets):
    features[:] = 1
    bins = Bins.from_sample(features)
    with pytest.raises(InputError, match="no feature varies"):
        train_on_codes(CodedRows([bins.encode(features)], targets), bins, PARAMETERS, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda codes, targets: CodedRows([codes.astype(np.float32)], targets),
        lambda codes, targets: CodedRows([codes[:-1]], targets),
        lambda codes, targets: CodedRows([codes], targets, np.ones(3, bool)),
    ],
)
def test_rows_that_dont_belong_together_are_refused(wrong):
    with pytest.raises(ValueError, match=r"rows|uint8"):
        wrong(np.zeros((5, 2), np.uint8), np.zeros(5, np.float32))
