import json
import shutil
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from ml_pipeline.backtest import Backtest, Candidate, Contest, Judged
from ml_pipeline.bundle import (
    POINTER,
    BundleMetadata,
    ServingPair,
    content_id,
    load_metadata,
    read_pointer,
    versions_dir,
    write_pointer,
)
from ml_pipeline.candidates import PURCHASE, RULE
from ml_pipeline.contest import (
    ALWAYS,
    BETTER,
    JUDGED,
    NEVER,
    Incumbent,
    find_incumbent,
    hold_contest,
    judge,
    judgeable_of,
)
from ml_pipeline.features import feature_names, spend_window_name
from ml_pipeline.formulas import member_formula, members_of, rule_formula
from ml_pipeline.metrics import capped_r2, d2, normalised_gini, score
from ml_pipeline.predictor import Predictor, load_predictor
from ml_pipeline.progress import Progress
from ml_pipeline.promotion import promote
from ml_pipeline.refresh import refresh
from ml_pipeline.schema import TOTAL_TARGET
from ml_pipeline.snapshot import snapshot_day
from ml_pipeline.train import CONTEST, train
from ml_pipeline.training_set import Observations, WindowPlan
from tests.ml_pipeline.conftest import SMALL

QUIET = Progress(bars=False)
TARGETS = ("food",)
NAMES = feature_names(TARGETS)
OF_90_DAYS = NAMES.index(spend_window_name(90, None))
FIRST, SECOND = date(2025, 10, 2), date(2025, 11, 1)
N = 80
KNOWS, DOES_NOT = "last_30_days", "zero"
"""Rules: one whose column is planted to be the very label, and one that says nothing."""


def observed():
    """Two report windows; what was spent in the last 30 days is what will be spent in the next 30, to the cent."""
    rng = np.random.default_rng(1)
    spent = np.round(np.where(rng.random(2 * N) < 0.5, rng.gamma(2, 30, 2 * N), 0), 2)
    features = np.zeros((2 * N, len(NAMES)), dtype=np.float32)
    features[:, NAMES.index(spend_window_name(30, None))] = spent
    features[:, OF_90_DAYS] = 1.5 * spent + 30
    return Observations(
        as_of=np.repeat(np.array([FIRST, SECOND], dtype="datetime64[D]"), N),
        customer_id=np.tile(np.array([f"c{n:03d}" for n in range(N)]), 2),
        features=features,
        names=NAMES,
        spend={"total": spent, "food": spent, "other": 0 * spent},
        bought=(spent > 0).astype(float),
    )


def challenging():
    """A backtest whose served total on the report windows is a rule that is half right."""
    days, told = (FIRST, SECOND), rule_formula("last_90_days_over_3", 0.0)
    served = Candidate("last_90_days_over_3", RULE)
    plan = WindowPlan(SECOND + timedelta(days=30), days, (), (), days)
    contest = Contest(TOTAL_TARGET, {}, (served,), {}, served, served, None, None, told)
    return Backtest(plan, {TOTAL_TARGET: contest}, {}, Judged(PURCHASE), purchase_serves=False)


def incumbent_of(as_of, first_day, names=NAMES):
    """Serves by what knows the labels, and was judged by what does not."""
    content = {
        "as_of": as_of.isoformat(),
        "features": list(names),
        "targets": list(TARGETS),
        "serving": {"total": {"name": KNOWS, "formula": rule_formula(KNOWS, 0.0)}},
        "judged": {"first_day": first_day.isoformat(), "formula": rule_formula(DOES_NOT, 0.0), "members": {}},
    }
    return Predictor(BundleMetadata("20251001-incumbent", content), {})


def contest_of(tmp_path, incumbent, observations):
    return hold_contest(incumbent, judgeable_of(incumbent, tmp_path), "challenger", challenging(), observations)


ONE_DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("as_of", "first_day", "judged_by"),
    [
        (FIRST, date(2025, 9, 1), ["final", "final"]),
        (FIRST + ONE_DAY, date(2025, 9, 1), ["judged", "final"]),
        (SECOND, FIRST, ["judged", "final"]),
        (SECOND + ONE_DAY, FIRST, ["judged", "judged"]),
        (SECOND + ONE_DAY, FIRST + ONE_DAY, [None, "judged"]),
        (date(2026, 1, 1), SECOND + ONE_DAY, [None, None]),
    ],
)
def test_nobody_is_asked_for_a_window_that_he_has_learned_from(tmp_path, as_of, first_day, judged_by):
    """The incumbent's final members know every label here: from its as_of on that is skill, before it is memory."""
    contest = contest_of(tmp_path, incumbent_of(as_of, first_day), observed())
    by = {window["as_of"]: window["incumbent_by"] for window in contest["windows"]}
    assert [by.get(day.isoformat()) for day in (FIRST, SECOND)] == judged_by
    assert contest["left_out"] == [day.isoformat() for day in (FIRST, SECOND) if day.isoformat() not in by]
    knows = [window["incumbent"]["capped_r2"] > 0.999 for window in contest["windows"]]
    assert knows == [each == "final" for each in judged_by if each]
    assert (contest["means"] is None) == (not by)


def test_both_sides_are_scored_on_the_same_rows_and_the_mean_is_of_the_windows(tmp_path):
    observations = observed()
    contest = contest_of(tmp_path, incumbent_of(FIRST, FIRST), observations)
    scores = []
    for day, window in zip((FIRST, SECOND), contest["windows"], strict=True):
        actual = observations.spend["total"][observations.on(day)]
        told = observations.features[observations.on(day), OF_90_DAYS].astype(float) / 3
        assert window["rows"] == N
        assert window["challenger"] == {
            "score": score(actual, told),
            "capped_r2": capped_r2(actual, told),
            "d2": d2(actual, told),
            "normalised_gini": normalised_gini(actual, told),
        }
        scores.append(window["challenger"]["score"])
    assert contest["means"]["challenger"]["score"] == pytest.approx(np.mean(scores))
    assert json.loads(json.dumps(contest)) == contest


def test_a_bundle_whose_features_stand_in_another_order_reads_its_own_columns(tmp_path):
    observations, backwards = observed(), NAMES[::-1]
    usual = contest_of(tmp_path, incumbent_of(FIRST, FIRST), observations)
    assert contest_of(tmp_path, incumbent_of(FIRST, FIRST, backwards), observations) == usual


class NotANumber:
    """A member that fails on every row."""

    def predict(self, features, threads=1):
        return np.full(len(features), np.nan)


def test_an_incumbent_that_fails_on_the_new_tables_keeps_nothing_from_serving(tmp_path):
    incumbent = incumbent_of(FIRST, FIRST)
    content = incumbent.metadata.content | {"serving": {"total": {"name": "x", "formula": member_formula("x")}}}
    broken = Predictor(BundleMetadata("20251001-incumbent", content), {"x": NotANumber()})
    contest = contest_of(tmp_path, broken, observed())
    assert (contest["means"], "not finite" in contest["problem"]) == (None, True)
    assert json.loads(json.dumps(contest)) == contest


# The verdict

NEW, OLD = ServingPair("20251201-new", "20251201-s"), ServingPair("20251101-old", "20251101-s")
TODAY = date(2025, 12, 1)


def scored(ours, theirs):
    means = {"challenger": {"score": ours}, "incumbent": {"score": theirs}}
    return {"windows": [{}], "means": means, "problem": None}


def serving(pair=OLD, as_of=TODAY, **facts):
    return Incumbent(pair, as_of, incumbent_of(FIRST, FIRST), **facts)


NOT_READ = Incumbent(OLD, TODAY, None, "Bundle 20251101-old has format 3.")
OTHER_SHOP = Incumbent(OLD, TODAY + ONE_DAY, None, "currency = 'EUR'", other_shop=True)


@pytest.mark.parametrize(
    ("incumbent", "contest", "name", "promoted", "refreshed"),
    [
        (None, None, "first", True, False),
        (serving(), scored(1.3, 1.2), "better", True, False),
        (serving(), scored(1.2, 1.2), "not_better", False, False),
        (serving(), scored(1.1, 1.2), "not_better", False, False),
        (serving(as_of=TODAY - ONE_DAY), scored(1.1, 1.2), "not_better", False, True),
        (serving(as_of=TODAY - ONE_DAY), scored(1.3, 1.2), "better", True, False),
        (serving(as_of=TODAY + ONE_DAY), scored(1.3, 1.2), "older_tables", False, False),
        (serving(as_of=None), scored(1.1, 1.2), "not_better", False, True),
        (serving(), {"windows": [], "means": None, "problem": None}, "no_common_window", False, False),
        (serving(), {"windows": [], "means": None, "problem": "It is not finite."}, "unreadable", True, False),
        (serving(NEW), None, "same_bundle", False, False),
        (serving(replace(NEW, snapshot_id="20251130-s"), TODAY - ONE_DAY), None, "same_bundle", True, False),
        (NOT_READ, None, "unreadable", True, False),
        (OTHER_SHOP, None, "other_shop", True, False),
    ],
)
def test_the_better_one_serves_and_what_cannot_be_compared_is_said(incumbent, contest, name, promoted, refreshed):
    verdict = judge(BETTER, NEW, TODAY, incumbent, contest)
    assert (verdict.name, verdict.promoted, verdict.refresh) == (name, promoted, refreshed)
    assert verdict.reason.endswith((".", "'EUR'"))
    always = judge(ALWAYS, NEW, TODAY, incumbent, contest)
    assert (always.promoted, always.refresh) == (incumbent is None or incumbent.pair != NEW, False)
    never = judge(NEVER, NEW, TODAY, incumbent, contest)
    assert (never.promoted, never.refresh) == (False, False)
    assert always.contest == never.contest == contest


def test_a_change_back_in_time_names_both_days_and_the_way_out():
    reason = judge(BETTER, NEW, TODAY, serving(as_of=date(2025, 12, 9)), scored(2, 1)).reason
    assert all(fact in reason for fact in ("2025-12-01", "2025-12-09", "--promote always"))


# Whole trainings


@pytest.fixture(scope="module")
def lost(trained_shop, tmp_path_factory):
    """BG/NBD alone challenges what serves, whose snapshot is as of a month ago; the folder and the training."""
    models = tmp_path_factory.mktemp("lost") / "models"
    shutil.copytree(trained_shop.models, models)
    month_ago = replace(trained_shop.prepared, as_of=trained_shop.prepared.as_of - timedelta(days=30))
    older = refresh(trained_shop.engine, month_ago, models, QUIET, force=True)
    assert read_pointer(models) == older.pair != trained_shop.pair
    profile = replace(SMALL, algorithm="bg_nbd")
    return models, train(trained_shop.engine, trained_shop.prepared, models, profile, QUIET)


def test_a_worse_bundle_does_not_serve_but_its_newer_tables_do(trained_shop, lost):
    models, trained = lost
    assert (trained.verdict.name, trained.verdict.promoted) == ("not_better", False)
    assert trained.pair.bundle_id != trained_shop.pair.bundle_id
    assert trained.serving == read_pointer(models) == trained_shop.pair  # to the bit the snapshot of these tables
    assert snapshot_day(models, trained.serving.snapshot_id) == trained_shop.prepared.as_of
    outcome = trained.as_json()
    assert (outcome["promoted"], outcome["serving"]) == (False, trained_shop.pair.bundle_id)
    assert 0 < outcome["metrics"]["normalised_gini"] < 1
    assert json.loads(json.dumps(outcome)) == outcome


def test_what_the_report_windows_were_predicted_by_comes_back_from_the_bundle_to_the_last_digit(trained_shop, lost):
    """The incumbent's side of the contest, read from its files, is its own backtest report."""
    (window,) = lost[1].verdict.contest["windows"]
    assert (window["as_of"], window["incumbent_by"]) == (trained_shop.report["report_days"][0], "judged")
    total = trained_shop.report["targets"]["total"]
    served = next(each for each in total["candidates"] if each["name"] == total["served"])
    reported = served["metrics"]["all"]["windows"][window["as_of"]]
    assert {name: window["incumbent"][name] for name in ("capped_r2", "d2", "normalised_gini")} == {
        name: reported[name] for name in ("capped_r2", "d2", "normalised_gini")
    }
    assert window["rows"] == trained_shop.report["populations"]["all"][window["as_of"]]


def test_the_contest_lies_beside_the_bundle_and_is_no_part_of_it(lost):
    models, trained = lost
    folder = versions_dir(models) / trained.pair.bundle_id
    assert json.loads((folder / CONTEST).read_text()) == trained.verdict.contest
    assert CONTEST not in load_metadata(models, trained.pair.bundle_id).content["files"]


def test_one_algorithm_alone_leaves_its_own_members_the_classifier_and_its_name(lost):
    models, trained = lost
    content = load_metadata(models, trained.pair.bundle_id).content
    assert content["algorithm"] == "bg_nbd"
    assert set(content["members"]) == {"bg_nbd_total_spend", "lightgbm_purchase"}
    kinds = {
        name: {each["kind"] for each in target["candidates"]} for name, target in trained.report["targets"].items()
    }
    assert kinds.pop("total") == {"rule", "model"}
    assert list(kinds.values()) == [{"rule", "blend"}] * 4
    assert "bg nbd" in (versions_dir(models) / trained.pair.bundle_id / "MODEL_CARD.md").read_text()


def test_serving_reads_nothing_of_what_the_bundle_was_judged_by(trained_shop, tmp_path):
    content = load_metadata(trained_shop.models, trained_shop.pair.bundle_id).content
    judged = content[JUDGED]
    assert set(judged["members"]) == set(members_of(judged["formula"])) != set()
    assert {each["file"] for each in judged["members"].values()} == {
        name for name in content["files"] if name.startswith(f"{JUDGED}/")
    }
    shutil.copytree(trained_shop.models, tmp_path / "models")
    folder = versions_dir(tmp_path / "models") / trained_shop.pair.bundle_id
    shutil.rmtree(folder / JUDGED)
    assert load_predictor(tmp_path / "models", trained_shop.pair.bundle_id).members
    incumbent = find_incumbent(tmp_path / "models", trained_shop.prepared, 1)
    assert (incumbent.predictor, f"{JUDGED}/" in incumbent.problem) == (None, True)


def test_a_better_bundle_serves(trained_shop, lost, tmp_path):
    models, weak = lost
    shutil.copytree(models, tmp_path / "models")
    promote(tmp_path / "models", weak.pair)
    profile = replace(SMALL, algorithm="xgboost", effort=replace(SMALL.effort, max_rounds=20))
    trained = train(trained_shop.engine, trained_shop.prepared, tmp_path / "models", profile, QUIET)
    means = trained.verdict.contest["means"]
    assert (trained.verdict.name, trained.serving) == ("better", trained.pair)
    assert means["challenger"]["score"] > means["incumbent"]["score"]
    assert read_pointer(tmp_path / "models") == trained.pair
    content = load_metadata(tmp_path / "models", trained.pair.bundle_id).content
    assert {each["library"] for name, each in content["members"].items() if name != "lightgbm_purchase"} == {"xgboost"}
    assert {f"xgboost_{name}" for name in ("total_spend", "electronics", "grocery", "sports")} < set(content["members"])


def test_what_cannot_be_compared_with_is_told_apart(trained_shop, tmp_path):
    models = tmp_path / "models"
    assert find_incumbent(models, trained_shop.prepared, 1) is None
    shutil.copytree(trained_shop.models, models)
    euros = replace(trained_shop.prepared, config=replace(trained_shop.prepared.config, currency="EUR"))
    other = find_incumbent(models, euros, 1)
    assert (other.other_shop, other.predictor, "currency = 'EUR'" in other.problem) == (True, None, True)
    member = versions_dir(models) / trained_shop.pair.bundle_id / "members" / "xgboost_total_spend.json"
    member.write_text("{}")
    damaged = find_incumbent(models, trained_shop.prepared, 1)
    assert (damaged.other_shop, damaged.predictor, "xgboost_total_spend" in damaged.problem) == (False, None, True)
    content = json.loads((models / "versions" / trained_shop.pair.bundle_id / "metadata.json").read_text())
    sealed = {**{name: each for name, each in content.items() if name != "bundle_id"}, "ranges": None}
    other_id = content_id(trained_shop.prepared.as_of, sealed)
    shutil.copytree(versions_dir(trained_shop.models) / trained_shop.pair.bundle_id, versions_dir(models) / other_id)
    (versions_dir(models) / other_id / "metadata.json").write_text(json.dumps({**sealed, "bundle_id": other_id}))
    write_pointer(models, ServingPair(other_id, trained_shop.pair.snapshot_id))
    strange = find_incumbent(models, trained_shop.prepared, 1)
    assert (strange.predictor, "another shape than this code reads" in strange.problem) == (None, True)
    (models / POINTER).write_text("[]")
    assert find_incumbent(models, trained_shop.prepared, 1).predictor is None
