import itertools
import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor

from ml_pipeline.btyd import BgNbd, GammaGamma, expected_spend
from ml_pipeline.errors import BadSummary, BundleMismatch
from ml_pipeline.members import (
    MEMBER_TYPES,
    BgNbdMember,
    BoostedTreesMember,
    ForestMember,
    LightGBMBgNbdMember,
    LightGBMMember,
    LightGBMRateMember,
    LinearMember,
    LogAmountMember,
    Offset,
    PurchaseOutlook,
    PurchaseSummary,
    XGBoostMember,
    XGBoostRateMember,
    load_member,
)

BG_NBD = BgNbd(0.25, 4.5, 0.8, 2.4, -9.0, 100)
GAMMA_GAMMA = GammaGamma(6.25, 3.74, 15.4, -9.0, 100)
SUMMARY = PurchaseSummary(purchase_days=0, first_to_last=1, since_first=2, repeat_value=3)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(5)
    features = rng.gamma(1.0, 1.0, (2000, 6)).astype(np.float32)
    features[rng.random(features.shape) < 0.1] = np.nan
    labels = np.where(rng.random(2000) < 0.4, rng.gamma(1.0, 100 * np.exp(0.5 * np.nan_to_num(features[:, 0]))), 0.0)
    return features, labels


def line(**changed):
    facts = {
        "fill": np.array([1.0, 2.0]),
        "low": np.array([0.0, -1.0]),
        "high": np.array([10.0, 3.0]),
        "mean": np.array([2.0, 1.0]),
        "scale": np.array([4.0, 0.5]),
        "coefficient": np.array([8.0, -1.0]),
        "intercept": 20.0,
    }
    return LinearMember(**{**facts, **changed})


def test_the_flattened_forest_gives_what_scikit_learn_gives(rows):
    features, labels = rows
    forest = RandomForestRegressor(n_estimators=8, max_depth=7, min_samples_leaf=5, random_state=1)
    forest.fit(features, labels)
    np.testing.assert_allclose(
        ForestMember.from_sklearn(forest).predict(features), forest.predict(features), rtol=1e-12
    )


def test_a_forest_that_never_saw_a_missing_value_still_takes_one():
    features = np.arange(400, dtype=np.float32).reshape(-1, 2)
    forest = RandomForestRegressor(n_estimators=3, random_state=0).fit(features, features[:, 0])
    assert np.isfinite(ForestMember.from_sklearn(forest).predict(np.full((2, 2), np.nan, dtype=np.float32))).all()


@pytest.mark.parametrize("rounds", [1, 40])
def test_the_flattened_boosted_trees_give_what_scikit_learn_gives(rows, rounds):
    features, labels = rows
    boosting = HistGradientBoostingRegressor(max_iter=40, max_leaf_nodes=8, early_stopping=False).fit(features, labels)
    staged = list(boosting.staged_predict(features))[rounds - 1]
    predicted = BoostedTreesMember.from_sklearn(boosting, rounds).predict(features)
    np.testing.assert_allclose(predicted, np.maximum(staged, 0), rtol=1e-12)


def test_boosted_trees_that_never_saw_a_missing_value_send_one_where_scikit_learn_does():
    features = np.arange(800, dtype=np.float32).reshape(-1, 2)
    boosting = HistGradientBoostingRegressor(max_iter=5, early_stopping=False).fit(features, features[:, 0])
    unknown = np.full((2, 2), np.nan, dtype=np.float32)
    predicted = BoostedTreesMember.from_sklearn(boosting, 5).predict(unknown)
    np.testing.assert_allclose(predicted, boosting.predict(unknown), rtol=1e-12)


def test_more_rows_than_are_walked_at_once_and_none_at_all_are_predicted(rows, monkeypatch):
    features, labels = rows
    forest = ForestMember.from_sklearn(RandomForestRegressor(n_estimators=3, random_state=1).fit(features, labels))
    at_once = forest.predict(features)
    monkeypatch.setattr("ml_pipeline.members.WALKED_ROWS", 300)
    np.testing.assert_array_equal(forest.predict(features), at_once)
    assert forest.predict(features[:0]).shape == (0,)


def test_a_line_fills_draws_in_scales_and_adds():
    features = np.array([[6, 2], [np.nan, np.nan], [1000, 0]], dtype=np.float32)
    np.testing.assert_array_equal(line().predict(features), [20 + 8 - 2, 20 - 2 - 2, 20 + 16 + 2])


def test_a_line_never_falls_below_0():
    assert line(intercept=-100.0).predict(np.zeros((1, 2), dtype=np.float32))[0] == 0


def test_a_line_is_saved_with_the_limits_that_it_draws_values_into(tmp_path):
    path = tmp_path / "line.json"
    line().save(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert (content["low"], content["high"], content["fill"]) == ([0.0, -1.0], [10.0, 3.0], [1.0, 2.0])


def test_an_offset_counts_missing_and_negative_values_as_0():
    features = np.array([[5, 10], [5, np.nan], [5, -10]], dtype=np.float32)
    np.testing.assert_allclose(Offset(1, "rate", 0.9, 4.0).amounts(features), [13.0, 4.0, 4.0])


def test_an_offset_counts_a_missing_value_as_what_it_was_told_to_and_a_file_without_one_as_0(tmp_path):
    features = np.array([[5, 10], [5, np.nan]], dtype=np.float32)
    offset = Offset(1, "value", 0.9, 4.0, missing=20.0)
    np.testing.assert_allclose(offset.amounts(features), [13.0, 22.0])
    rows = histories(np.ones((60, 6), dtype=np.float32))
    rows[0, OFFSET.feature_index] = np.nan
    path = tmp_path / "rate.json"
    LightGBMRateMember(replace(OFFSET, missing=20.0), boosted_by_lightgbm(rows, np.arange(60.0))).save(path)
    told = LightGBMRateMember.load(path).predict(rows)
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["missing"]
    path.write_text(json.dumps(content), encoding="utf-8")
    before = LightGBMRateMember.load(path).predict(rows)
    assert told[0] == pytest.approx(before[0] * 22 / 4)
    np.testing.assert_array_equal(told[1:], before[1:])


def test_bg_nbd_reads_repeats_ages_and_values_from_the_features():
    features = np.array([[4, 50, 90, 30], [1, 0, 20, np.nan]], dtype=np.float32)
    expected = expected_spend(BG_NBD, GAMMA_GAMMA, [3, 0], [50, 0], [90, 20], [30, np.nan], 30)
    np.testing.assert_array_equal(BgNbdMember(SUMMARY, 30, BG_NBD, GAMMA_GAMMA).predict(features), expected)


def test_bg_nbd_refuses_a_customer_that_cannot_be():
    features = np.array([[4, 500, 90, 30]], dtype=np.float32)
    with pytest.raises(BadSummary, match="500"):
        BgNbdMember(SUMMARY, 30, BG_NBD, GAMMA_GAMMA).predict(features)


def test_every_library_has_one_name_and_one_kind_of_file():
    assert {member.suffix for member in MEMBER_TYPES.values()} == {".json", ".txt", ".npz"}
    assert all(member.library == name for name, member in MEMBER_TYPES.items())


def test_a_library_that_this_code_does_not_know_is_refused_by_name(tmp_path):
    with pytest.raises(BundleMismatch, match="catboost"):
        load_member("catboost", tmp_path / "member.cbm")


# Contributions


def boosted_by_lightgbm(features, labels, objective="tweedie"):
    import lightgbm

    facts = {"objective": objective, "num_leaves": 8, "verbose": -1, "num_threads": 1, "seed": 3}
    booster = lightgbm.train(facts, lightgbm.Dataset(features, labels), 30)
    return lightgbm.Booster(model_str=booster.model_to_string())


def boosted_by_xgboost(features, labels, objective="reg:tweedie", **more):
    import xgboost

    facts = {"objective": objective, "max_leaves": 8, "nthread": 1, "seed": 3, **more}
    return xgboost.train(facts, xgboost.QuantileDMatrix(features, labels), 30)


def boosted_on_outlook(features, labels):
    outlook = PurchaseOutlook(SUMMARY, BG_NBD, GAMMA_GAMMA)
    return LightGBMBgNbdMember(outlook, boosted_by_lightgbm(outlook.beside(features), labels))


def histories(features):
    """Features whose first four columns are purchase days, age at the last purchase, age, mean value."""
    rng = np.random.default_rng(8)
    found = features.copy()
    found[:, 0] = 1 + rng.poisson(1.0, len(found))
    found[:, 2] = rng.integers(1, 400, len(found))
    found[:, 1] = np.where(found[:, 0] > 1, found[:, 2] * rng.random(len(found)), 0)
    found[:, 3] = np.where(found[:, 0] > 1, rng.gamma(2, 20, len(found)), np.nan)
    return found


OFFSET = Offset(2, "rate", 0.9, 4.0)
MADE = {
    "xgboost": lambda x, y: XGBoostMember(boosted_by_xgboost(x, y)),
    "xgboost on squares": lambda x, y: XGBoostMember(boosted_by_xgboost(x, y, "reg:squarederror")),
    "xgboost_rate": lambda x, y: XGBoostRateMember(OFFSET, boosted_by_xgboost(x, y / 50, base_score=1.0)),
    "lightgbm": lambda x, y: LightGBMMember(boosted_by_lightgbm(x, y)),
    "lightgbm on squares": lambda x, y: LightGBMMember(boosted_by_lightgbm(x, y, "regression")),
    "lightgbm of amounts": lambda x, y: LightGBMMember(boosted_by_lightgbm(x, y + 1, "gamma")),
    "lightgbm of buying": lambda x, y: LightGBMMember(boosted_by_lightgbm(x, y > 0, "binary")),
    "lightgbm_rate": lambda x, y: LightGBMRateMember(OFFSET, boosted_by_lightgbm(x, y / 50)),
    "lightgbm_log_amount": lambda x, y: LogAmountMember(1.3, 80.0, boosted_by_lightgbm(x, np.log1p(y), "regression")),
    "random_forest": lambda x, y: ForestMember.from_sklearn(
        RandomForestRegressor(n_estimators=6, max_depth=8, min_samples_leaf=5, random_state=1).fit(x, y)
    ),
    "gradient_boosting": lambda x, y: BoostedTreesMember.from_sklearn(
        HistGradientBoostingRegressor(max_iter=20, max_leaf_nodes=8, early_stopping=False).fit(x, y), 20
    ),
    "linear": lambda x, y: LinearMember(
        np.full(6, 0.5), np.full(6, 0.1), np.full(6, 3.0), np.full(6, 1.0), np.full(6, 0.7), np.arange(6) - 3.0, 9.0
    ),
    "bg_nbd": lambda x, y: BgNbdMember(SUMMARY, 30, BG_NBD, GAMMA_GAMMA),
    "lightgbm_bg_nbd": boosted_on_outlook,
}


@pytest.fixture(scope="module", params=sorted(MADE))
def taken_apart(request, rows):
    """A member, features it can take, and its contributions to them."""
    features, labels = rows
    if "bg_nbd" in request.param:
        features = histories(features)
    member = MADE[request.param](features, labels)
    return member, features, member.contributions(features)


def prediction_of(found):
    link = {"log": np.exp, "logit": lambda logit: 1 / (1 + np.exp(-logit)), "money": lambda sums: np.maximum(sums, 0)}
    return link[found.scale](found.sums)


def test_every_member_can_be_taken_apart():
    assert {name.split(" ")[0] for name in MADE} == set(MEMBER_TYPES)


def test_a_base_and_the_contributions_make_the_prediction(taken_apart):
    member, features, found = taken_apart
    assert found.parts.shape == features.shape
    np.testing.assert_allclose(prediction_of(found), member.predict(features), rtol=1e-5, atol=1e-4)


def test_contributions_of_a_row_alone_are_those_among_all(taken_apart):
    member, features, found = taken_apart
    for row in (0, 77, 1999):
        alone = member.contributions(features[row : row + 1])
        np.testing.assert_array_equal(alone.parts[0], found.parts[row])
        assert alone.base == found.base


def test_threads_that_ask_at_once_get_what_each_gets_alone(taken_apart):
    member, features, found = taken_apart
    alone = member.predict(features[:32])

    def ask(row):
        asked = features[row : row + 1]
        return member.predict(asked)[0], member.contributions(asked).parts[0]

    with ThreadPoolExecutor(4) as threads:
        for row, (predicted, parts) in enumerate(threads.map(ask, range(32))):
            assert predicted == alone[row]
            np.testing.assert_array_equal(parts, found.parts[row])


def test_a_member_that_was_saved_is_taken_apart_as_before(taken_apart, tmp_path):
    member, features, found = taken_apart
    path = tmp_path / f"member{member.suffix}"
    member.save(path)
    again = load_member(member.library, path).contributions(features[:50])
    np.testing.assert_array_equal(again.parts, found.parts[:50])


def test_what_contributes_nothing_to_anybody_changes_nobody_when_it_is_shuffled(taken_apart):
    member, features, found = taken_apart
    silent = np.flatnonzero((found.parts == 0).all(axis=0))
    shuffled = features.copy()
    shuffled[:, silent] = np.random.default_rng(0).permutation(features)[:, silent]
    np.testing.assert_array_equal(member.predict(shuffled), member.predict(features))


def test_only_the_four_columns_of_bg_nbd_contribute_to_it(rows):
    found = MADE["bg_nbd"](*rows).contributions(histories(rows[0]))
    assert (found.parts != 0).any(axis=0).tolist() == [True] * 4 + [False] * 2
    np.testing.assert_array_equal(found.parts[:, 0], found.parts[:, 1])
    np.testing.assert_array_equal(found.parts[:, 0], found.parts[:, 2])


def test_a_customer_who_is_new_today_is_what_bg_nbd_starts_from():
    found = BgNbdMember(SUMMARY, 30, BG_NBD, GAMMA_GAMMA).contributions(np.array([[1, 0, 0, np.nan]], dtype=np.float32))
    np.testing.assert_allclose(found.parts, 0, atol=1e-12)


def test_what_an_outlook_says_counts_for_the_columns_it_was_made_from(rows):
    features = histories(rows[0])
    member = boosted_on_outlook(features, rows[1])
    found = member.contributions(features)
    beside = member._outlook.beside(features)
    raw = member._booster.predict(beside, pred_contrib=True)[:, :-1]
    assert (raw[:, features.shape[1] :] != 0).any(axis=0).all()
    np.testing.assert_allclose(found.parts[:, 4:], raw[:, 4:6], atol=1e-12)
    np.testing.assert_allclose(found.parts.sum(axis=1), raw.sum(axis=1), atol=1e-9)


def walk_knowing(arrays, root, row, known):
    """A tree's value when only some features are known: the others' sides are averaged by cover."""
    split = arrays["feature"][root]
    if split < 0:
        return arrays["value"][root]
    left, right = arrays["left"][root], arrays["right"][root]
    if split in known:
        seen = row[split]
        goes_left = arrays["missing_left"][root] if np.isnan(seen) else seen <= arrays["threshold"][root]
        return walk_knowing(arrays, left if goes_left else right, row, known)
    cover = arrays["cover"]
    sides = [walk_knowing(arrays, side, row, known) * cover[side] for side in (left, right)]
    return sum(sides) / cover[root]


def shapley_values(arrays, row):
    """By their definition, over all subsets of features."""
    n_features = len(row)
    value = {
        known: sum(walk_knowing(arrays, root, row, known) for root in arrays["roots"])
        for size in range(n_features + 1)
        for known in itertools.combinations(range(n_features), size)
    }
    found = np.zeros(n_features)
    for known, without in value.items():
        for feature in set(range(n_features)) - set(known):
            joined = tuple(sorted((*known, feature)))
            weight = math.factorial(len(known)) * math.factorial(n_features - len(known) - 1)
            found[feature] += weight / math.factorial(n_features) * (value[joined] - without)
    return found, value[()]


@pytest.mark.parametrize("kind", ["random_forest", "gradient_boosting"])
def test_trees_of_scikit_learn_are_taken_apart_by_exact_shapley_values(rows, kind):
    features, labels = rows
    member = MADE[kind](features, labels)
    found = member.contributions(features[:4])
    per_tree = len(member._arrays["roots"]) if kind == "random_forest" else 1
    for row in range(4):
        expected, base = shapley_values(member._arrays, features[row])
        np.testing.assert_allclose(found.parts[row] * per_tree, expected, rtol=1e-8, atol=1e-8)
    start = 0.0 if kind == "random_forest" else member._arrays["baseline"][0]
    assert found.base * per_tree == pytest.approx(base + start)


@pytest.mark.parametrize("at", ["threshold", "missing"])
def test_values_on_a_threshold_and_missing_ones_are_taken_apart_where_they_go(rows, at):
    features, labels = rows
    for kind in ("random_forest", "gradient_boosting"):
        member = MADE[kind](features, labels)
        arrays = member._arrays
        inner = np.flatnonzero(arrays["feature"] >= 0)[:60]
        asked = features[: len(inner)].copy()
        limit = arrays["threshold"][inner].astype(np.float32)  # may lie on either side of the float64 threshold
        asked[np.arange(len(inner)), arrays["feature"][inner]] = limit if at == "threshold" else np.nan
        found = member.contributions(asked)
        np.testing.assert_allclose(np.maximum(found.sums, 0), member.predict(asked), rtol=1e-9)


def test_trees_that_never_split_and_that_split_only_what_is_missing_are_taken_apart():
    features = np.array([[1.0, np.nan]] * 40 + [[1.0, 2.0]] * 40, dtype=np.float32)
    labels = np.repeat([1.0, 5.0], 40)
    for trees in (
        BoostedTreesMember.from_sklearn(HistGradientBoostingRegressor(max_iter=3).fit(features, labels), 3),
        ForestMember.from_sklearn(
            RandomForestRegressor(n_estimators=3, max_features=1, random_state=0).fit(features, labels)
        ),
        ForestMember.from_sklearn(RandomForestRegressor(n_estimators=3, random_state=0).fit(features, np.ones(80))),
    ):
        found = trees.contributions(features)
        np.testing.assert_allclose(found.sums, trees.predict(features), rtol=1e-9)
        assert (found.parts[:, 0] == 0).all()


def test_an_objective_whose_link_is_not_known_is_refused_by_name(rows):
    member = LightGBMMember(boosted_by_lightgbm(rows[0], rows[1], "huber"))
    with pytest.raises(BundleMismatch, match="'huber'"):
        member.contributions(rows[0][:1])


def test_a_personal_amount_above_the_usual_one_is_a_reason_of_its_feature():
    assert Offset(1, "rate", 0.9, 4.0).usual == pytest.approx(40.0)
    features = np.array([[0, 0, 40], [0, 0, 400]], dtype=np.float32)
    member = LightGBMRateMember(OFFSET, boosted_by_lightgbm(np.random.default_rng(1).random((200, 3)), np.ones(200)))
    found = member.contributions(features)
    np.testing.assert_allclose(found.parts[:, 2], [0.0, np.log(364 / 40)], atol=1e-7)
