import json
import re
import shutil
import threading
from dataclasses import replace
from datetime import date, timedelta

import ibis
import lightgbm
import numpy as np
import pytest
import xgboost

from ml_pipeline import features
from ml_pipeline.bundle import digests_below, load_metadata, read_pointer, versions_dir
from ml_pipeline.engine import open_engine
from ml_pipeline.errors import FeatureLeak, TooFewToLearnFrom
from ml_pipeline.features import CALENDAR_FEATURES, feature_names
from ml_pipeline.formulas import members_of
from ml_pipeline.model_card import complete_report, write_model_card
from ml_pipeline.prepare import prepare_dataset
from ml_pipeline.progress import Progress
from ml_pipeline.promotion import promote
from ml_pipeline.registration import REGISTRATION_AGES
from ml_pipeline.sample_ceiling import find_sample_truth
from ml_pipeline.snapshot import SEGMENTS, load_snapshot, money_columns
from ml_pipeline.train import net_floor, train
from ml_pipeline.training_set import LEAST_SAMPLE
from ml_pipeline.turns import taking_turns
from tests.ml_pipeline.conftest import SMALL
from tests.ml_pipeline.small_shop import prepare_shop, write_shop
from tests.ml_pipeline.toy_models import write_toy_pair

LEARNERS = ("random_forest", "xgboost", "lightgbm")


def test_twelve_models_are_trained_and_the_metadata_lists_the_inputs_in_order(trained_shop):
    members = load_metadata(trained_shop.models, trained_shop.pair.bundle_id).content["members"]
    expected = {
        f"{library}_{name}" for library in LEARNERS for name in ("total_spend", "electronics", "grocery", "sports")
    }
    serving = load_metadata(trained_shop.models, trained_shop.pair.bundle_id).content["serving"]
    needed = {name for served in serving.values() for name in members_of(served["formula"])}
    assert set(members) == expected | needed | {"lightgbm_purchase"}
    enhanced = json.loads((trained_shop.models / "model_metadata_enhanced.json").read_text())
    assert tuple(enhanced["features"]) == feature_names(("electronics", "grocery", "sports"))


@pytest.mark.parametrize(
    "name",
    [
        *(f"xgboost_{target}.json" for target in ("total_spend", "electronics", "grocery", "sports")),
        *(f"lightgbm_{target}.txt" for target in ("total_spend", "electronics", "grocery", "sports")),
        "model_metadata_enhanced.json",
        "MODEL_CARD.md",
        "current.json",
    ],
)
def test_the_documented_files_stand_at_their_names(trained_shop, name):
    assert (trained_shop.models / name).stat().st_size > 0


@pytest.mark.parametrize("target", ["total_spend", "electronics", "grocery", "sports"])
@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_every_documented_booster_alone_gives_the_number_that_is_reported_as_its_own(trained_shop, library, target):
    """The integrator's snippet: nothing of ours but the files."""
    metadata = json.loads((trained_shop.models / "model_metadata_enhanced.json").read_text())
    path = trained_shop.models / metadata["models"][f"{library}_{target}"]["file"]
    rows = np.flatnonzero(~np.isnan(trained_shop.snapshot.features(range(400))).all(axis=1))[:100]
    inputs = trained_shop.snapshot.features(rows)
    if library == "xgboost":
        frame = xgboost.DMatrix(inputs, feature_names=metadata["features"], missing=np.nan)
        plain = xgboost.Booster(model_file=path).predict(frame)
    else:
        booster = lightgbm.Booster(model_file=str(path))
        assert booster.feature_name() == metadata["features"]
        plain = booster.predict(inputs)
    reported = trained_shop.snapshot.raw(rows)[f"{library}_{target}"]
    assert len(rows) == 100
    np.testing.assert_allclose(plain, reported, rtol=1e-6)
    assert plain.mean() > 1  # money, not a log or a rate


def test_the_pointer_names_the_pair_and_the_bundle_is_what_was_sealed(trained_shop):
    assert read_pointer(trained_shop.models) == trained_shop.pair
    folder = versions_dir(trained_shop.models) / trained_shop.pair.bundle_id
    sealed = json.loads((folder / "metadata.json").read_text())["files"]
    found = digests_below(folder)
    del found["metadata.json"], found["timings.json"]
    assert found == sealed


def test_a_promotion_takes_away_its_forerunners_copies_and_nothing_else(trained_shop, tmp_path):
    models = tmp_path / "models"
    pair = write_toy_pair(models, ["c1"])  # a bundle without boosters
    shutil.copytree(versions_dir(trained_shop.models), versions_dir(models), dirs_exist_ok=True)
    promote(models, trained_shop.pair)
    (models / "xgboost_notes.txt").write_text("mine")
    content = json.loads((versions_dir(models) / pair.bundle_id / "metadata.json").read_text())
    assert not content["members"]
    promote(models, pair)
    assert [path.name for path in models.glob("*gb*")] == ["xgboost_notes.txt"]
    assert read_pointer(models) == pair


def test_a_promotion_waits_for_the_one_that_is_under_way(trained_shop, tmp_path):
    models = tmp_path / "models"
    before = write_toy_pair(models, ["c1"])
    shutil.copytree(versions_dir(trained_shop.models), versions_dir(models), dirs_exist_ok=True)
    with taking_turns(models):
        waiting = threading.Thread(target=promote, args=(models, trained_shop.pair))
        waiting.start()
        waiting.join(0.3)
        assert (waiting.is_alive(), read_pointer(models)) == (True, before)
        assert not (models / "model_metadata_enhanced.json").exists()
    waiting.join()
    assert read_pointer(models) == trained_shop.pair


def test_every_known_customer_is_in_the_snapshot_whether_he_bought_or_not(trained_shop):
    known = trained_shop.engine.to_pyarrow(trained_shop.prepared.customers.select("customer_id"))[
        "customer_id"
    ].to_pylist()
    positions = trained_shop.snapshot.positions(known)
    assert (positions >= 0).all()
    assert trained_shop.snapshot.n_customers == len(known)
    never = np.isnan(trained_shop.snapshot.features(positions)).all(axis=1)
    answers = trained_shop.snapshot.columns(positions[never])
    assert 0 < never.sum() < len(known)
    assert answers["cold_start"].all()
    assert set(answers["cold_start_reason"]) == {"never_bought"}
    assert len(np.unique(answers["predicted_total_spend"])) <= len(REGISTRATION_AGES)


def test_answers_are_finite_not_negative_in_order_and_capped(trained_shop):
    content = load_metadata(trained_shop.models, trained_shop.pair.bundle_id).content
    answers = trained_shop.snapshot.columns(range(trained_shop.snapshot.n_customers))
    for name in money_columns(trained_shop.snapshot.targets):
        middle = answers[f"predicted_{name}_spend"]
        lower, upper = answers[f"predicted_{name}_spend_lower"], answers[f"predicted_{name}_spend_upper"]
        assert np.isfinite(middle).all()
        assert (lower >= 0).all()
        assert (lower <= middle).all()
        assert (middle <= upper).all()
    assert answers["predicted_total_spend"].max() <= content["serving"]["total"]["cap"] + 0.01
    assert 0 <= answers["purchase_probability_30d"].min() <= answers["purchase_probability_30d"].max() <= 1
    low, high = content["segments"]["thresholds"]
    assert low < high
    of_segment = {name: answers["predicted_total_spend"][answers["segment"] == name] for name in SEGMENTS}
    assert [of_segment[name].max() <= end + 0.01 for name, end in zip(SEGMENTS, (low, high), strict=False)] == [
        True
    ] * 2
    assert of_segment[SEGMENTS[2]].min() > high - 0.01


def test_predictions_tell_buyers_apart_on_the_windows_that_chose_nothing(trained_shop):
    total = trained_shop.report["targets"]["total"]
    served = next(c for c in total["candidates"] if c["name"] == total["served"])["metrics"]["all"]
    zero = next(c for c in total["candidates"] if c["name"] == "zero")["metrics"]["all"]
    assert served["normalised_gini"] > 0.5
    assert served["d2"] > zero["d2"]
    assert trained_shop.report["probability"]["served"]["auc"] > 0.7


def test_the_card_shows_every_candidate_of_every_target_beside_the_rules(trained_shop):
    card = (trained_shop.models / "MODEL_CARD.md").read_text()
    for target in money_columns(trained_shop.snapshot.targets):
        table = card.split(f"## {target}: every customer")[1].split("\n## ")[0]
        assert table.index("last 90 days ÷ 3") < table.index("share of total" if target == "other" else "xgboost")
        for candidate in trained_shop.report["targets"][target]["candidates"]:
            if candidate["kind"] != "rule":
                assert re.search(rf"^\| {re.escape(candidate['name'].replace('_', ' '))}( ← serves)? \|", table, re.M)
        assert table.count("← serves") == 1
    assert re.search(r"Trained as of \d{4}-\d\d-\d\d", card)
    assert not re.search(r"\bnan\b|\bNone\b", card)


def test_the_card_says_how_often_and_how_much_the_floor_at_0_took_in_net_mode(trained_shop, tmp_path):
    header = "transaction_id,customer_id,transaction_date,total_amount\n"
    sales = (
        "t1,c1,2025-01-02,100\nt2,c1,2025-01-20,-130.5\nt3,c2,2025-01-05,40\nt4,c2,2025-02-01,-5\nt5,c2,2025-02-20,1\n"
    )
    shop = write_shop(tmp_path / "data", {"store_sales_header": header + sales}, 'spend = "net"\n[targets]\n')
    prepared = prepare_shop(shop, tmp_path / "out")
    days = [date(2025, 1, 2), date(2025, 2, 1)]
    floor = net_floor(prepared.purchases.get_backend(), prepared, days, ())
    assert floor["total"] == {"rows": 3, "floored_rows": 2, "floored_money": 34.5}
    assert net_floor(trained_shop.engine, trained_shop.prepared, days, ()) is None
    metadata = load_metadata(trained_shop.models, trained_shop.pair.bundle_id).content
    content = {**metadata, "net_floor": floor}
    performance = complete_report(trained_shop.report, content, trained_shop.prepared.report)
    write_model_card(tmp_path / "card.md", content, performance, ())
    assert "purchases of total in 2 of 3 training windows" in (tmp_path / "card.md").read_text()
    assert "34.50 of returns" in (tmp_path / "card.md").read_text()


def test_the_card_calls_a_zero_without_any_observation_no_estimate(trained_shop, tmp_path):
    metadata = load_metadata(trained_shop.models, trained_shop.pair.bundle_id).content
    content = {**metadata, "never_bought": {**metadata["never_bought"], "observations": 0}}
    performance = complete_report(trained_shop.report, content, trained_shop.prepared.report)
    write_model_card(tmp_path / "card.md", content, performance, ())
    assert "this is no estimate" in (tmp_path / "card.md").read_text()
    assert "mean of 0 past observations" not in (tmp_path / "card.md").read_text()


def test_nothing_personal_reaches_the_artifacts(trained_shop):
    for path in trained_shop.models.rglob("*"):
        if path.is_file():
            assert b"@example" not in path.read_bytes(), path


# What serves, recomputed by a data scientist


def plain_number(folder, members, name, features):
    """A member's own number with its library alone; nothing of ours but the files."""
    member = members[name]
    path = folder / member["file"]
    match member["library"]:
        case "lightgbm":
            return lightgbm.Booster(model_file=str(path)).predict(features)
        case "xgboost":
            return xgboost.Booster(model_file=path).inplace_predict(features).astype(float)
        case "lightgbm_rate":
            saved = json.loads(path.read_text())
            seen = np.nan_to_num(features[:, saved["feature_index"]].astype(float))
            trees = lightgbm.Booster(model_str=saved["booster"]).predict(features, raw_score=True)
            return (saved["weight"] * np.maximum(seen, 0) + saved["prior"]) * np.exp(trees)
        case "lightgbm_log_amount":
            saved = json.loads(path.read_text())
            return (
                saved["scale"]
                * saved["smearing"]
                * np.exp(lightgbm.Booster(model_str=saved["booster"]).predict(features))
            )
    raise AssertionError(f"no snippet for {member['library']}")


def plain_calibration(p, calibration):
    if calibration is None:
        return np.clip(p, 0.001, 0.999)
    p = np.clip(p, 0.001, 0.999)
    logit = calibration["a"] * np.log(p) - calibration["b"] * np.log(1 - p) + calibration["c"]
    return np.clip(1 / (1 + np.exp(-logit)), 0.001, 0.999)


def plain_levels(money, levels):
    if levels is None:
        return money
    return money * np.exp(np.interp(np.log(np.maximum(money, 1e-300)), levels["middles"], np.log(levels["factors"])))


def plain_formula(formula, target, number, column, targets, total):
    """A formula of the metadata by hand; number(name): a member's, column(name): a feature's, (n,)."""
    match formula["kind"]:
        case "member":
            return plain_levels(np.maximum(number(formula["name"]), 0), formula["levels"])
        case "hurdle":
            amounts = [plain_levels(number(amount["name"]), amount["levels"]) for amount in formula["amounts"]]
            probability = plain_calibration(number(formula["purchase"]), formula["calibration"])
            return probability * np.prod(amounts, axis=0) ** (1 / len(amounts))
        case "share":
            rate = np.nan_to_num(column("ew_spend_rate_120d"))
            of = {name: np.nan_to_num(column(f"ew_spend_rate_120d_{name}")) for name in targets}
            own = np.minimum(of[target], rate) if target in of else np.maximum(rate - sum(of.values()), 0)
            return (own + formula["pull"] * formula["shop_share"]) / (rate + formula["pull"]) * total
        case "blend":
            parts = [plain_formula(part, target, number, column, targets, total) for part in formula["parts"]]
            return np.exp(np.mean(np.log(parts), axis=0)) if formula["mean"] == "geometric" else np.mean(parts, axis=0)
        case "rule" if formula["name"] == "decayed_rate" and target == "total":
            return np.nan_to_num(column("ew_spend_rate_120d"))
    raise AssertionError(f"no snippet for {formula}")


@pytest.fixture
def recomputed(trained_shop):
    """50 buyers: what the metadata and the members' files make of their features, and where they are in the snapshot.

    The last is a function of the numbers before they agree, per target, from each target's formula.
    """
    folder = versions_dir(trained_shop.models) / trained_shop.pair.bundle_id
    metadata = json.loads((folder / "metadata.json").read_text())
    everyone = trained_shop.snapshot.features(range(trained_shop.snapshot.n_customers))
    rows = np.flatnonzero(~np.isnan(everyone).all(axis=1))[::20][:50]
    assert len(rows) == 50
    features = np.array(everyone[rows])

    def number(name):
        return plain_number(folder, metadata["members"], name, features)

    def column(name):
        return features[:, metadata["features"].index(name)].astype(float)

    def served(target, total=None):
        serving = metadata["serving"][target]
        money = plain_formula(serving["formula"], target, number, column, metadata["targets"], total)
        return np.clip(money, 0, serving["cap"])

    return metadata, rows, number, served


def plain_agreement(method, total, parts):
    """Total and parts (50, k) made to agree, as a reader of the metadata would compute it."""
    match method["name"]:
        case "top_down":
            agreed = total
        case "bottom_up":
            agreed = parts.sum(axis=1)
        case "half_and_half":
            agreed = (total + parts.sum(axis=1)) / 2
        case "mint":
            gap = np.array([1.0, *[-1.0] * parts.shape[1]])
            for row, told in enumerate(np.column_stack([total, parts])):
                scale = np.diag(np.maximum(told, method["floors"]))
                errors = scale @ np.array(method["covariance"]) @ scale
                told = np.maximum(told - errors @ gap * (gap @ told) / (gap @ errors @ gap), 0)
                total[row], parts[row] = told[0], told[1:]
            agreed = total
    return agreed, parts / parts.sum(axis=1, keepdims=True) * agreed[:, None]


def test_metadata_and_members_of_a_served_blend_are_enough_to_recompute_the_predicted_total_and_parts(
    trained_shop, recomputed
):
    """Each by its formula, then made to agree; a cent may go to another part in rounding."""
    metadata, rows, _, served = recomputed
    assert metadata["serving"]["total"]["kind"] == "blend"
    total, names = served("total"), (*metadata["targets"], "other")
    parts = np.column_stack([served(name, total) for name in names])
    agreed, parts = plain_agreement(metadata["reconciliation"], total, parts)
    columns = trained_shop.snapshot.columns(rows)
    np.testing.assert_allclose(agreed, columns["predicted_total_spend"], rtol=1e-6, atol=0.0051)
    assert len(set(columns["predicted_total_spend"])) > 40
    for name, part in zip(names, parts.T, strict=True):
        np.testing.assert_allclose(part, columns[f"predicted_{name}_spend"], rtol=1e-6, atol=0.0151)


def test_the_purchase_probability_can_be_recomputed_too(trained_shop, recomputed):
    metadata, rows, number, _ = recomputed
    probability = metadata["probability"]
    answered = trained_shop.snapshot.columns(rows)["purchase_probability_30d"]
    np.testing.assert_allclose(
        plain_calibration(number(probability["member"]), probability["calibration"]), answered, atol=0.00006
    )


# What must not matter


def test_calendar_features_of_a_short_shop_leave_no_trace_in_any_member(trained_shop):
    """14 months cannot tell a season from a trend; the card says what was not learned from."""
    content = load_metadata(trained_shop.models, trained_shop.pair.bundle_id).content
    assert [group["features"] for group in content["unused_features"]] == [list(CALENDAR_FEATURES)]
    everyone = np.array(trained_shop.snapshot.features(range(400)))
    buyers = everyone[~np.isnan(everyone).all(axis=1)]
    otherwise = buyers.copy()
    columns = [content["features"].index(name) for name in CALENDAR_FEATURES]
    assert not np.isnan(buyers[:, columns]).any()
    otherwise[:, columns] = np.random.default_rng(0).normal(0, 100, (len(buyers), len(columns)))
    for name, member in trained_shop.predictor.members.items():
        np.testing.assert_array_equal(member.predict(buyers), member.predict(otherwise), err_msg=name)
    one, other = trained_shop.predictor.predict(buyers), trained_shop.predictor.predict(otherwise)
    np.testing.assert_array_equal(one.money, other.money)
    np.testing.assert_array_equal(one.probability, other.probability)
    card = (trained_shop.models / "MODEL_CARD.md").read_text()
    assert "a season cannot be told from a trend" in card
    assert CALENDAR_FEATURES[0] in card


def test_the_truth_of_the_sample_moves_no_bit_of_bundle_and_snapshot_and_stands_beside_the_card(
    trained_shop, sample_tables, tmp_path
):
    """The same tables once more, with other threads and the truth at hand: the same pair."""
    truth = find_sample_truth(sample_tables, sample_tables.parent / "truth")
    engine = open_engine(tmp_path / "engine", threads=1)
    again = prepare_dataset(engine, trained_shop.tables, tmp_path / "work", progress=Progress(bars=False))
    two_threads = replace(SMALL, effort=replace(SMALL.effort, threads=2))
    pair = train(engine, again, tmp_path / "models", two_threads, Progress(bars=False), truth).pair
    engine.disconnect()
    assert pair == trained_shop.pair
    folder, heading = versions_dir(tmp_path / "models") / pair.bundle_id, "## The ceiling of the sample shop"
    assert heading in (tmp_path / "models" / "MODEL_CARD.md").read_text()
    assert heading not in (folder / "MODEL_CARD.md").read_text()
    assert heading not in (trained_shop.models / "MODEL_CARD.md").read_text()
    ceiling = json.loads((folder / "ceiling.json").read_text())
    assert ceiling["served"]["capped_r2"] < ceiling["oracle"]["capped_r2"]
    assert ceiling["days"] == trained_shop.report["report_days"]


# Shops of one's own


def noise_sales(n_customers=400, n_days=260, share_a_day=0.03, seed=0):
    """Everybody buys with the same chance every day, for amounts of the same distribution: nothing to tell apart."""
    rng = np.random.default_rng(seed)
    lines = ["transaction_id,customer_id,transaction_date,total_amount"]
    for step in range(n_days):
        day = date(2025, 1, 1) + timedelta(days=step)
        for customer in np.flatnonzero(rng.random(n_customers) < share_a_day):
            lines.append(f"t{len(lines)},c{customer},{day},{rng.gamma(2, 20) + 1:.2f}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A shop of pure noise that only knows amounts, prepared."""
    folder = tmp_path_factory.mktemp("noise")
    shop = write_shop(folder / "data", {"store_sales_header": noise_sales()}, "[targets]\n")
    return prepare_shop(shop, folder / "out", threads=1)


FAST = replace(SMALL, effort=replace(SMALL.effort, max_rounds=10, forest_trees=2))


def train_on(prepared, models, profile=SMALL, truth=None):
    return train(prepared.purchases.get_backend(), prepared, models, profile, Progress(bars=False), truth)


def test_on_a_shop_of_pure_noise_a_rule_serves_and_the_card_says_so(noise, tmp_path):
    trained = train_on(noise, tmp_path)
    pair, report = trained.pair, trained.report
    total = report["targets"]["total"]
    assert (total["served_kind"], total["served"]) == ("rule", "mean")
    assert total["selection_advantage"] < 2 * total["selection_noise"]
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert "No model beat the best simple rule (mean of the training rows) on the selection windows" in card
    assert "the rule serves." in card
    assert re.search(r"^\| mean of the training rows ← serves \|", card, re.M)
    answers = load_snapshot(tmp_path, pair.snapshot_id).columns(range(400))
    assert len(set(answers["predicted_total_spend"])) == 1
    assert len(set(answers["segment"])) == 1


def test_a_feature_that_knows_the_future_stops_the_training_before_anything_is_fitted(noise, tmp_path, monkeypatch):
    build_totals = features.build_totals

    def early(purchases, *rest):
        return build_totals(purchases.mutate(day=purchases.day - ibis.interval(days=2)), *rest)

    monkeypatch.setattr(features, "build_totals", early)
    with pytest.raises(FeatureLeak, match="every row on and after as_of was deleted"):
        train_on(noise, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_large_shop_is_learned_from_by_a_sample_of_whole_customers_and_serves_all(noise, tmp_path):
    """Of as many as were asked for, or of fewer where so many are too much."""
    pair = train_on(noise, tmp_path, replace(FAST, most_observations=700, n_samples=390)).pair
    content = load_metadata(tmp_path, pair.bundle_id).content
    assert content["buyers"] == 400
    assert content["trained_on"]["observations"] <= 700
    assert content["trained_on"]["n_samples"] == 390
    assert content["trained_on"]["customers"] == 700 // content["trained_on"]["as_of_days"]
    asked = train_on(noise, tmp_path, replace(FAST, n_samples=130, algorithm="random_forest"))
    content = load_metadata(tmp_path, asked.pair.bundle_id).content
    assert (content["trained_on"]["customers"], content["buyers"], content["algorithm"]) == (130, 400, "random_forest")
    assert load_snapshot(tmp_path, asked.pair.snapshot_id).n_customers == 400
    card = (versions_dir(tmp_path) / asked.pair.bundle_id / "MODEL_CARD.md").read_text()
    assert "They are 130 of the 400 who ever bought" in card
    assert "Only random forest took part" in card
    (window,) = asked.verdict.contest["windows"]
    assert window["rows"] > 390  # it is judged on all, not on the few


@pytest.mark.parametrize("asked", [0, -5, LEAST_SAMPLE - 1])
def test_a_sample_of_too_few_customers_is_refused_with_what_it_takes(noise, tmp_path, asked):
    with pytest.raises(TooFewToLearnFrom, match=f"n_samples = {asked}: .* at least {LEAST_SAMPLE} .* has 400"):
        train_on(noise, tmp_path, replace(FAST, n_samples=asked))


def test_the_truth_of_another_shop_gives_no_ceiling_but_a_warning(noise, sample_tables, tmp_path, caplog):
    train_on(noise, tmp_path, FAST, find_sample_truth(sample_tables, sample_tables.parent / "truth"))
    assert "no ceiling: The truth in" in caplog.text
    assert "ceiling of the sample shop" not in (tmp_path / "MODEL_CARD.md").read_text()
