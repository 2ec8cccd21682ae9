"""Regressors of scikit-learn, and of others, that a spec names by their class."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.svm import LinearSVR

from lungseg.learning.regressors.base import PixelTable, Regressor
from lungseg.learning.regressors.registry import resolve_regressor
from lungseg.learning.regressors.ridge import RidgeRegressor, RidgeSettings
from lungseg.learning.regressors.scikit_learn import ScikitLearn, ScikitLearnSettings
from lungseg.system.errors import InputError

FOREST = "sklearn.ensemble:RandomForestRegressor"


class Own(Regressor):
    """A class of somebody else, with keys of its own."""

    Settings = RidgeSettings

    def __init__(self, settings, runtime):
        self.settings = settings

    fit = predict = save = load = lambda *_: None


class Untrusted(LinearSVR):
    """A class that skops doesn't know."""


@pytest.fixture
def rows():
    features = np.random.default_rng(0).random((400, 5), np.float32)
    return PixelTable(features, (features[:, 0] > 0.5).astype(np.float32))


def new(runtime, estimator=FOREST, **parameters) -> ScikitLearn:
    return ScikitLearn(ScikitLearnSettings(estimator=estimator, parameters=parameters), runtime)


@pytest.mark.parametrize(
    ("estimator", "parameters"),
    [
        (FOREST, {"n_estimators": 5}),
        ("sklearn.ensemble:HistGradientBoostingRegressor", {"max_iter": 5}),
        ("sklearn.ensemble:GradientBoostingRegressor", {"n_estimators": 5}),
        ("sklearn.neighbors:KNeighborsRegressor", {}),
        ("sklearn.neural_network:MLPRegressor", {"max_iter": 300}),
        ("sklearn.linear_model:BayesianRidge", {}),
    ],
)
def test_it_learns_and_is_read_back(estimator, parameters, rows, runtime, new_fit_context, tmp_path):
    regressor, fit_context = new(runtime, estimator, **parameters), new_fit_context()
    regressor.require(5)
    regressor.fit(rows, rows, fit_context)
    predicted = regressor.predict(rows.features)
    assert predicted.dtype == np.float32
    assert np.mean((predicted - rows.targets) ** 2) < 0.15  # of the mean alone: 0.25
    assert fit_context.rows[0]["train_loss"] == pytest.approx(np.mean((predicted - rows.targets) ** 2))
    regressor.save(tmp_path)
    again = ScikitLearn.load(tmp_path, regressor.settings, runtime)
    np.testing.assert_array_equal(again.predict(rows.features), predicted)


def test_it_is_what_the_library_itself_fits_with_the_seed_of_the_run(rows, runtime, new_fit_context):
    regressor = new(runtime, n_estimators=5, max_depth=3)
    regressor.fit(rows, rows, new_fit_context(seed=4))
    own = RandomForestRegressor(n_estimators=5, max_depth=3, random_state=4).fit(rows.features, rows.targets)
    np.testing.assert_allclose(regressor.predict(rows.features), own.predict(rows.features), rtol=1e-6)
    assert regressor.model.n_jobs == runtime.threads


@pytest.mark.parametrize(
    ("estimator", "parameters", "said"),
    [
        (
            FOREST,
            {"trees": 5},
            r"regressor_settings: .*RandomForestRegressor has no 'trees'; it has .*n_estimators",
        ),
        ("sklearn.ensemble:Forest", {}, "has no class 'Forest'"),
        ("sklearn.ensemble:RandomForestClassifier", {}, "is no regressor of scikit-learn's kind"),
        ("pathlib:Path", {}, "not a subclass"),
    ],
)
def test_what_can_not_be_made_is_refused(estimator, parameters, said, runtime):
    with pytest.raises(InputError, match=said):
        new(runtime, estimator, **parameters)


@pytest.mark.parametrize(
    ("estimator", "parameters", "said"),
    [
        (FOREST, {"n_estimators": 0}, r"regressor_settings = \{'n_estimators': 0\} can't be fitted"),
        (f"{__name__}:Untrusted", {}, "skops doesn't trust .*Untrusted. Choose another one, or derive"),
    ],
)
def test_what_can_not_be_fitted_or_stored_is_refused_before_it_is_fitted(
    estimator, parameters, said, runtime
):
    with pytest.raises(InputError, match=said) as refusal:
        new(runtime, estimator, **parameters).require(5)
    assert "\n" not in str(refusal.value)


def test_a_damaged_file_is_named(rows, runtime, new_fit_context, tmp_path):
    regressor = new(runtime, n_estimators=2)
    regressor.fit(rows, rows, new_fit_context())
    regressor.save(tmp_path)
    path = tmp_path / ScikitLearn.FILE
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"estimator\.skops is missing or damaged"):
        ScikitLearn.load(tmp_path, regressor.settings, runtime)


def test_names_and_classes_are_resolved():
    own = {"ridge": RidgeSettings(alpha=2)}
    assert resolve_regressor("ridge", own, {}) == (RidgeRegressor, RidgeSettings(alpha=2))
    assert resolve_regressor(f"{__name__}:Own", own, {"alpha": 3}) == (Own, RidgeSettings(alpha=3))
    found, settings = resolve_regressor(FOREST, own, {"n_estimators": 3})
    assert (found, settings.parameters) == (ScikitLearn, {"n_estimators": 3})
    with pytest.raises(InputError, match=r"regressor_settings of .*unknown key 'beta'"):
        resolve_regressor(f"{__name__}:Own", own, {"beta": 3})


def test_chance_plays_a_part_where_the_class_has_a_random_state():
    assert ScikitLearn.depends_on_seed(ScikitLearnSettings(estimator=FOREST))
    assert not ScikitLearn.depends_on_seed(
        ScikitLearnSettings(estimator="sklearn.linear_model:BayesianRidge")
    )
