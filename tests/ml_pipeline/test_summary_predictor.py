import json
import shutil
from dataclasses import replace

import lightgbm
import numpy as np
import pytest
import xgboost

from ml_pipeline.bundle import versions_dir
from ml_pipeline.errors import BundleMismatch, MissingSummaryInput, UnknownModelType
from ml_pipeline.predictor import load_predictor
from ml_pipeline.summary_columns import column_of, select_summary, summary_columns, summary_matrix, with_implied
from ml_pipeline.summary_forms import FORMS, as_form, form_of
from ml_pipeline.summary_members import MODEL_TYPES, SummaryMembers
from ml_pipeline.summary_model import random_masks
from ml_pipeline.summary_predictor import GOLDEN, check_summary_golden

EXAMPLE = {
    "days_since_last": 30, "transactions": 5, "total_spend": 1500.0, "days_since_first": 180, "avg_transaction_value": 300.0,
    "avg_days_between": 37.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def summary(trained_shop):
    return trained_shop.predictor.summary


@pytest.fixture(scope="module")
def whole(trained_shop):
    """Summary rows (n, C) of everyone who bought, of which everything is known."""
    features = trained_shop.snapshot.features(range(trained_shop.snapshot.n_customers))
    metadata = trained_shop.predictor.metadata
    return select_summary(features[~np.isnan(features).all(axis=1)], metadata.features, metadata.targets)


@pytest.fixture(scope="module")
def rows(trained_shop, whole):
    """Summary rows of which something is known, each something else."""
    masked = whole.copy()
    masked[~random_masks(len(masked), trained_shop.predictor.metadata.targets, 3)] = np.nan
    masked[0] = np.nan
    return masked


def matrix_of(trained_shop, *known):
    metadata = trained_shop.predictor.metadata
    categories = {one: target for target, some in metadata.content["target_categories"].items() for one in some}
    return summary_matrix(known, metadata.targets, categories)


def bundle_folder(trained_shop):
    return versions_dir(trained_shop.models) / trained_shop.pair.bundle_id


def test_every_subset_of_the_numbers_gets_a_finite_answer_inside_its_interval(summary, rows):
    answers = summary.predict(rows)
    assert (answers.lower >= 0).all()
    assert (answers.lower <= answers.money).all()
    assert (answers.money <= answers.upper).all()
    assert ((answers.probability >= 0.001) & (answers.probability <= 0.999)).all()
    assert set(answers.segment) <= {0, 1, 2}
    assert answers.money.dtype == answers.lower.dtype == np.int64


def test_who_is_quite_unknown_is_expected_to_spend_somewhat_like_everybody(summary, whole):
    unknown = summary.predict(np.full_like(whole[:1], np.nan))
    everybody = summary.predict(whole).money.mean()
    assert 0.1 * everybody < unknown.money[0] < 3 * everybody
    assert not unknown.extrapolated[0]


def test_one_row_alone_is_answered_as_among_all_and_the_order_does_not_matter(summary, rows):
    for name in ("best", "xgboost", "lightgbm"):
        everyone, turned = summary.predict(rows, name), summary.predict(rows[::-1], name)
        np.testing.assert_array_equal(everyone.money, turned.money[::-1])
        np.testing.assert_array_equal(everyone.probability, turned.probability[::-1])
        for row in (0, 1, 2, len(rows) // 2, len(rows) - 1):
            alone = summary.predict(rows[row : row + 1], name)
            for part in ("money", "lower", "upper", "probability", "model_used", "segment", "extrapolated"):
                assert getattr(alone, part)[0] == getattr(everyone, part)[row], part
    outlook, alone = summary.outlook(rows), summary.outlook(rows[5:6])
    np.testing.assert_array_equal(outlook.expected_purchases[5], alone.expected_purchases[0])


def test_no_rows_get_no_answers(summary, rows):
    assert len(summary.predict(rows[:0]).money) == 0
    assert summary.outlook(rows[:0]).expected_purchases.shape == (0, 3)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_a_booster_s_answers_are_those_of_its_file_and_the_plain_library(name, trained_shop, summary, rows):
    """Mean value of a transaction, drawn to the mean of all, times e to what the trees add up to; corrected by level."""
    content = json.loads((bundle_folder(trained_shop) / "members" / f"summary_{name}.json").read_text())
    full = with_implied(rows)
    value = np.nan_to_num(full[:, content["feature_index"]].astype(float), nan=content["missing"])
    if name == "xgboost":
        booster = xgboost.Booster()
        booster.load_model(bytearray(content["booster"], "utf-8"))
        matrix = xgboost.DMatrix(full, feature_names=list(summary_columns(trained_shop.predictor.metadata.targets)))
        trees = booster.predict(matrix, output_margin=True).astype(float)
    else:
        trees = lightgbm.Booster(model_str=content["booster"]).predict(full, raw_score=True)
    money = (content["weight"] * value + content["prior"]) * np.exp(trees)
    for index, form in enumerate(FORMS):
        level = trained_shop.predictor.metadata.content["summary"]["forms"][form]["levels"].get(name)
        of_form = form_of(full) == index
        if level:
            factor = np.exp(np.interp(np.log(money[of_form]), level["middles"], np.log(level["factors"])))
            money[of_form] *= factor
    cap = trained_shop.predictor.metadata.content["serving"]["total"]["cap"]
    assert content["feature"] == "avg_transaction_value"
    np.testing.assert_allclose(summary.predict(rows, name).money / 100, np.minimum(money, cap), rtol=1e-6, atol=0.01)


def test_the_classifier_s_answers_are_those_of_its_file_calibrated_for_the_form(trained_shop, summary, whole):
    metadata = trained_shop.predictor.metadata
    booster = lightgbm.Booster(model_file=str(bundle_folder(trained_shop) / "members" / "summary_purchase.txt"))
    for form in FORMS:
        served = metadata.content["summary"]["forms"][form]["probability"]
        cut = as_form(whole, form, metadata.targets)
        raw = np.clip(booster.predict(with_implied(cut)), 0.001, 0.999)
        learned = served["calibration"]
        logit = learned["a"] * np.log(raw) - learned["b"] * np.log1p(-raw) + learned["c"]
        expected = np.clip(1 / (1 + np.exp(-logit)), 0.001, 0.999)
        np.testing.assert_allclose(summary.predict(cut).probability, expected, rtol=1e-9)


def test_a_category_that_nobody_has_seen_is_the_unknown_level_and_not_the_same_as_none_told(trained_shop, summary):
    recent = {"spend_90d": 900.0, "spend_30d": 300.0, "transactions_90d": 3}
    unseen, unknown, known = (
        summary.predict(matrix_of(trained_shop, {**EXAMPLE, **recent, **category}))
        for category in (
            {"dominant_category": "Hovercraft"},
            {"dominant_category": ""},
            {"dominant_category": "Grocery"},
        )
    )
    assert unseen.money[0] == unknown.money[0]
    assert np.isfinite(known.money[0])
    level = matrix_of(trained_shop, {"dominant_category": "Hovercraft"})[0, -3:]
    assert level.tolist() == [0, 0, 0]


def test_loading_what_was_saved_gives_the_same_answers(trained_shop, summary, rows, tmp_path):
    (tmp_path / "members").mkdir()
    summary.members.save(tmp_path)
    paths = {name: tmp_path / file for name, file in summary.members.files().items()}
    loaded = SummaryMembers.load(summary.members.as_json(), paths, summary.members.mean)
    again = replace(summary, members=loaded)
    assert loaded.model_types == summary.model_types == MODEL_TYPES
    for name in ("best", "xgboost", "lightgbm"):
        np.testing.assert_array_equal(again.predict(rows, name).money, summary.predict(rows, name).money)
    np.testing.assert_array_equal(again.outlook(rows).alive, summary.outlook(rows).alive)
    for name, file in summary.members.files().items():
        assert (tmp_path / file).read_bytes() == (bundle_folder(trained_shop) / file).read_bytes(), name


@pytest.mark.parametrize(
    "file", ["summary_xgboost.json", "summary_lightgbm.json", "summary_bg_nbd.json", "summary_purchase.txt"]
)
def test_a_bundle_whose_summary_member_was_changed_is_refused(trained_shop, tmp_path, file):
    folder = versions_dir(tmp_path) / trained_shop.pair.bundle_id
    shutil.copytree(bundle_folder(trained_shop), folder)
    member = folder / "members" / file
    member.write_text(member.read_text().replace("1", "2", 1))
    with pytest.raises(BundleMismatch, match=rf"{file} is missing or differs"):
        load_predictor(tmp_path, folder.name)


def test_the_golden_rows_are_of_all_forms_and_are_looked_at(trained_shop, summary):
    path = bundle_folder(trained_shop) / GOLDEN
    with np.load(path) as golden:
        forms = form_of(with_implied(golden["matrix"]))
        assert set(forms.tolist()) == {0, 1, 2}
        assert {"money_xgboost", "money_lightgbm", "money_bg_nbd", "expected_purchases"} < set(golden.files)
    boosters = summary.members.boosters
    swapped = {"xgboost": boosters["lightgbm"], "lightgbm": boosters["xgboost"]}
    with pytest.raises(BundleMismatch, match=r"golden rows differently .*money_xgboost"):
        check_summary_golden(replace(summary, members=replace(summary.members, boosters=swapped)), path)


def test_bg_nbd_needs_when_was_bought_and_how_often(trained_shop, summary):
    for lacking in ("transactions", "days_since_last", "days_since_first"):
        row = {name: value for name, value in EXAMPLE.items() if name != lacking}
        with pytest.raises(MissingSummaryInput, match="needs all of transactions, days_since_last, days_since_first"):
            summary.predict(matrix_of(trained_shop, EXAMPLE, row), "bg_nbd")
        outlook = summary.outlook(matrix_of(trained_shop, EXAMPLE, row))
        assert np.isfinite(outlook.alive[0])
        assert np.isnan(outlook.alive[1])
        assert np.isnan(outlook.expected_purchases[1]).all()
    assert summary.predict(matrix_of(trained_shop, EXAMPLE), "bg_nbd").model_used == ["bg_nbd"]


def test_the_outlook_is_bg_nbd_s_own(trained_shop, summary):
    purchases = summary.members.bg_nbd.purchases
    outlook = summary.outlook(matrix_of(trained_shop, EXAMPLE))
    history = [4.0], [150.0], [180.0]
    assert outlook.alive[0] == purchases.probability_alive(*history)[0]
    assert outlook.expected_purchases[0].tolist() == [
        purchases.expected_purchases(*history, days)[0] for days in (30, 90, 365)
    ]
    assert (np.diff(outlook.expected_purchases) > 0).all()


@pytest.mark.parametrize(
    "odd",
    [
        {"transactions": 5, "days_since_last": 9, "days_since_first": 9},
        {"transactions": 1, "days_since_last": 3, "days_since_first": 90},
        {"transactions": 5, "days_since_last": 90, "days_since_first": 9},
        {"transactions": 0, "days_since_last": 0, "days_since_first": 0},
        {
            "transactions": 2.5,
            "days_since_last": 1e30,
            "days_since_first": 1e35,
            "total_spend": 1e38,
            "spend_30d": -5.0,
        },
    ],
)
def test_numbers_that_contradict_each_other_are_answered_all_the_same(trained_shop, summary, odd):
    for name in ("best", *summary.model_types):
        answers = summary.predict(matrix_of(trained_shop, odd), name)
        assert 0 <= answers.lower[0] <= answers.money[0] <= answers.upper[0]
    outlook = summary.outlook(matrix_of(trained_shop, odd))
    assert 0 <= outlook.alive[0] <= 1


def test_another_name_than_those_that_there_are_is_refused_with_them(trained_shop, summary):
    with pytest.raises(UnknownModelType, match="'random_forest'; this model has best, xgboost, lightgbm, bg_nbd"):
        summary.predict(matrix_of(trained_shop, EXAMPLE), "random_forest")


def test_a_matrix_of_another_width_is_refused(summary):
    with pytest.raises(ValueError, match=r"\(1, 3\); the bundle needs \(n, 18\)"):
        summary.predict(np.zeros((1, 3), dtype=np.float32))


def test_far_outside_of_what_was_trained_on_is_said_and_capped(trained_shop, summary):
    huge = matrix_of(trained_shop, {**EXAMPLE, "total_spend": 1e30, "avg_transaction_value": 2e29}, EXAMPLE)
    answers = summary.predict(huge, "xgboost")
    cap = trained_shop.predictor.metadata.content["serving"]["total"]["cap"]
    assert answers.extrapolated.tolist() == [True, False]
    assert answers.money[0] == round(cap * 100)


def test_who_spends_less_than_all_but_one_in_a_thousand_is_outside_of_what_could_be_learned(
    trained_shop, summary, whole
):
    """No leaf of a tree is made of so few: the answer is that of people who spend more."""
    content = trained_shop.predictor.metadata.content
    for name in ("avg_transaction_value", "lifetime_spend"):
        low, least = content["ranges"][name]["low"], content["summary"]["least"][name]
        assert 0 < low < least
        rare = whole[:1].copy()
        rare[:, list(summary_columns(content["targets"])).index(name)] = (low + least) / 2
        assert summary.predict(rare).extrapolated[0]
        assert name in {each["feature"] for each in summary.farthest(rare[0])}
    assert summary.predict(whole).extrapolated.mean() < 0.02


def test_a_row_gets_the_first_of_its_form_s_order_that_it_tells_enough_for(trained_shop, summary):
    content = json.loads(json.dumps(trained_shop.predictor.metadata.content["summary"]))
    order = ["bg_nbd", "last_90_days_over_3", "lifetime_rate_x_30", "mean"]
    for form in content["forms"].values():
        form["serves"] = order
        form["levels"] = {}
        wide = form["intervals"]["xgboost"] | {"amounts": None}
        form["intervals"] = dict.fromkeys(order, wide)
    metadata = replace(summary.metadata, content={**summary.metadata.content, "summary": content})
    told = replace(summary, metadata=metadata).predict(
        matrix_of(
            trained_shop,
            EXAMPLE,
            {"spend_90d": 300.0},
            {"total_spend": 1200.0, "days_since_first": 120},
            {"total_spend": 1200.0},
        )
    )
    assert told.model_used == order
    assert told.money[1:].tolist() == [10_000, 30_000, round(summary.members.mean * 100)]


def test_who_bought_more_recently_and_more_often_is_more_likely_to_buy(trained_shop, summary):
    active, gone = matrix_of(
        trained_shop,
        {**EXAMPLE, "days_since_last": 2, "transactions": 12, "avg_days_between": 16},
        {**EXAMPLE, "days_since_last": 175, "avg_days_between": 1.25},
    )[:, None]
    assert summary.predict(active).probability[0] > 2 * summary.predict(gone).probability[0]
    assert summary.outlook(active).alive[0] > 2 * summary.outlook(gone).alive[0]
    assert summary.predict(active).money[0] > 2 * summary.predict(gone).money[0]
    assert column_of(active, "transactions")[0] == 12
