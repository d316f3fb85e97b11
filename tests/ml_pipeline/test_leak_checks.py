import json
from dataclasses import dataclass, replace
from datetime import date, timedelta

import ibis
import numpy as np
import pandas as pd
import pytest

from ml_pipeline import features
from ml_pipeline.cancellations import as_known_before
from ml_pipeline.engine import open_engine
from ml_pipeline.errors import FeatureLeak, LabelOverlap
from ml_pipeline.feature_definitions import Feature
from ml_pipeline.features import DAYS_SINCE_LAST, LIFETIME_SPEND, TOTAL_TRANSACTIONS, feature_names, spend_window_name
from ml_pipeline.leak_checks import check_for_leaks, refuse_knowing_columns, refuse_overlapping_folds
from ml_pipeline.prepare import Prepared, prepare_dataset
from ml_pipeline.progress import Progress
from ml_pipeline.training_set import Observations, WindowPlan, build_observations, plan_windows
from tests.ml_pipeline.purchase_rows import customers_table, purchase, purchases_table


@dataclass(frozen=True)
class Shop:
    """What `check_for_leaks` asks for, and the raw customer_details."""

    engine: object
    purchases: object
    customers: object
    observations: Observations
    plan: WindowPlan
    targets: tuple[str, ...]
    details: pd.DataFrame | None = None

    def observed(self) -> Observations:
        """The observations, built anew."""
        return build_observations(self.engine, self.purchases, self.customers, self.plan.learning, self.targets)

    def check(self, observations=None):
        found = self.observations if observations is None else observations
        return check_for_leaks(self.engine, self.purchases, self.customers, found, self.plan, self.targets)

    def with_columns(self, **columns):
        """The observations with more columns."""
        added = [np.asarray(values, dtype=np.float32) for values in columns.values()]
        matrix = np.column_stack([self.observations.features, *added])
        return replace(self.observations, features=matrix, names=(*self.observations.names, *columns))

    def judge(self, **columns):
        """What added columns know of the future, without building the others again."""
        proven = self.observations.names
        return refuse_knowing_columns(self.engine, self.purchases, self.with_columns(**columns), proven, seed=0)

    def column(self, name):
        return self.observations.features[:, self.observations.names.index(name)].astype(float)

    def detail(self, column):
        """What customer_details say today, for every observation."""
        return self.details.set_index("customer_id")[column].reindex(self.observations.customer_id).to_numpy()


def shop_of(engine, purchases, customers, targets, first_day, as_of, details=None):
    plan = plan_windows(first_day, as_of, spacing_days=30, most_days=5, n_calibration=1, n_selection=1, n_report=1)
    observations = build_observations(engine, purchases, customers, plan.learning, targets)
    return Shop(engine, purchases, customers, observations, plan, tuple(targets), details)


@pytest.fixture(scope="module")
def shop(sample_tables, tmp_path_factory):
    engine = open_engine(threads=2)
    prepared: Prepared = prepare_dataset(
        engine, sample_tables, tmp_path_factory.mktemp("leaks"), progress=Progress(bars=False)
    )
    details = pd.read_csv(next(sample_tables.glob("customer_details.*")), dtype={"customer_id": str})
    details["points"] = pd.to_numeric(details["total_loyalty_points"], errors="coerce")
    details["last_purchase_day"] = days_of(details["last_purchase_date"])
    details = details.drop_duplicates("customer_id")[["customer_id", "points", "last_purchase_day"]]
    # A customer table that brings more than it was known for on a past day: nothing of it may reach a feature.
    customers = prepared.customers.left_join(ibis.memtable(details), "customer_id").drop("customer_id_right")
    customers = engine.create_table("customers_of_today", customers)
    first_day = prepared.as_of - timedelta(days=400)
    return shop_of(engine, prepared.purchases, customers, ("grocery",), first_day, prepared.as_of, details)


def days_of(texts):
    """Days since 1970-01-01, NaN where there is none."""
    return (pd.to_datetime(texts, errors="coerce", format="mixed") - pd.Timestamp(0)).dt.days


def handmade(rows, targets=("grocery",)):
    engine = open_engine(threads=1)
    purchases = engine.create_table("purchases", purchases_table(rows))
    customers = engine.create_table("customers", customers_table({}))
    days = [row["day"] for row in rows]
    return shop_of(engine, purchases, customers, targets, min(days), max(days) + timedelta(days=1))


# Nothing to find


def test_honest_observations_pass_and_the_report_says_what_was_compared(shop):
    report = shop.check()
    assert report.rebuilt == feature_names(shop.targets)
    assert report.rows > 500
    assert report.days[0] == shop.plan.learning[0]
    assert report.days[-1] == shop.plan.learning[-1]
    assert report.judged == {}
    assert f"{report.rows * len(report.rebuilt):,} values" in report.sentence()
    assert json.loads(json.dumps(report.as_json())) == shop.check().as_json()


def test_honest_columns_from_elsewhere_pass_and_are_counted(shop):
    fading = shop.column(TOTAL_TRANSACTIONS) * np.exp(-shop.column(DAYS_SINCE_LAST) / 60)
    chance = np.random.default_rng(1).normal(size=len(fading))
    report = shop.check(shop.with_columns(fading_frequency=fading, chance=chance, constant=np.ones(len(fading))))
    assert report.judged.keys() == {"fading_frequency", "chance", "constant"}
    assert max(report.judged.values()) < 0.2
    assert "3 columns could not be rebuilt" in report.sentence()


def test_checking_leaves_no_table_behind(shop):
    before = set(shop.engine.list_tables())
    shop.check()
    assert {name for name in shop.engine.list_tables() if "memtable" not in name} <= before


# Planted where features are built

FEW = (DAYS_SINCE_LAST, TOTAL_TRANSACTIONS, LIFETIME_SPEND, spend_window_name(30))


@pytest.fixture
def few_features(monkeypatch):
    """The whole set takes seconds to compile, and one plant is caught as another."""
    everything = features.feature_set
    monkeypatch.setattr(
        features, "feature_set", lambda targets: tuple(one for one in everything(targets) if one.name in FEW)
    )


def test_a_builder_that_reads_days_from_as_of_on_is_caught(shop, few_features, monkeypatch):
    build_totals = features.build_totals

    def early(purchases, *rest):
        return build_totals(purchases.mutate(day=purchases.day - ibis.interval(days=2)), *rest)

    monkeypatch.setattr(features, "build_totals", early)
    with pytest.raises(
        FeatureLeak, match=r"values changed when every row on and after as_of was deleted.*in the training"
    ):
        shop.check(shop.observed())


def test_the_same_builders_without_a_plant_pass(shop, few_features):
    assert set(shop.check(shop.observed()).rebuilt) == set(FEW)


def test_a_builder_that_knows_of_cancellations_to_come_is_caught(shop, few_features, monkeypatch):
    build_totals = features.build_totals

    def hindsight(purchases, *rest):
        return build_totals(as_known_before(purchases, ibis.date("2999-01-01")), *rest)

    monkeypatch.setattr(features, "build_totals", hindsight)
    with pytest.raises(FeatureLeak, match="every row on and after as_of was deleted"):
        shop.check(shop.observed())


class Planted(Feature):
    """A column of the customer table, as it stands today."""

    unit = "anything"

    def value(self, row):
        return row.planted


def plant(monkeypatch, planted_of):
    """One more feature: what `planted_of(customers)` (customer_id, planted) holds for the customer."""
    with_customer_since, feature_set = features._with_customer_since, features.feature_set

    def with_planted(totals, customers):
        rows = with_customer_since(totals, customers)
        joined = rows.left_join(planted_of(customers), "customer_id")
        return joined.select(*[rows[name] for name in rows.columns], "planted")

    monkeypatch.setattr(features, "_with_customer_since", with_planted)
    monkeypatch.setattr(features, "feature_set", lambda targets: (*feature_set(targets), Planted()))


@pytest.mark.parametrize("column", ["points", "last_purchase_day"])
def test_a_feature_of_todays_customer_table_is_caught(shop, few_features, monkeypatch, column):
    plant(monkeypatch, lambda customers: customers.select("customer_id", planted=customers[column]))
    with pytest.raises(FeatureLeak, match=r"^planted: .*known only today"):
        shop.check(shop.observed())


def test_the_same_feature_of_what_was_known_passes(shop, few_features, monkeypatch):
    plant(monkeypatch, lambda customers: customers.select("customer_id", planted=customers.customer_id.isnull()))
    assert "planted" in shop.check(shop.observed()).rebuilt


def test_a_table_that_the_builder_brings_along_is_caught(shop, few_features, monkeypatch):
    brought = ibis.memtable(shop.details[["customer_id", "points"]])
    plant(monkeypatch, lambda customers: brought.select("customer_id", planted=brought.points))
    with pytest.raises(FeatureLeak, match=r"^planted: .*exchanged their ids"):
        shop.check(shop.observed())


def test_a_column_added_to_the_purchases_is_caught(shop, few_features, monkeypatch):
    later = shop.purchases.mutate(total_ever=shop.purchases.spend_units.sum().over(group_by="customer_id"))
    later = shop.engine.create_table("purchases_of_today", later, overwrite=True)
    build_totals, feature_set = features.build_totals, features.feature_set

    def with_total(purchases, *rest):
        totals = build_totals(purchases, *rest)
        ever = purchases.group_by("customer_id").aggregate(planted=purchases.total_ever.max())
        joined = totals.left_join(ever, "customer_id")
        return joined.select(*[totals[name] for name in totals.columns], "planted")

    widened = replace(shop, purchases=later)
    assert set(widened.check(widened.observed()).rebuilt) == set(FEW)
    monkeypatch.setattr(features, "build_totals", with_total)
    monkeypatch.setattr(features, "feature_set", lambda targets: (*feature_set(targets), Planted()))
    monkeypatch.setattr(
        features, "_with_customer_since", lambda totals, customers: totals.mutate(customer_since_day=ibis.null("int32"))
    )
    with pytest.raises(FeatureLeak, match="planted"):
        widened.check(widened.observed())


# Planted into the matrix


def test_a_target_in_place_of_a_feature_is_caught(shop):
    matrix = shop.observations.features.copy()
    matrix[:, shop.observations.names.index(spend_window_name(30))] = shop.observations.spend["total"]
    with pytest.raises(FeatureLeak, match=rf"^{spend_window_name(30)}: .*changed after it was built"):
        shop.check(replace(shop.observations, features=matrix))


def test_one_changed_value_of_a_customer_who_is_sampled_is_caught(few_features):
    rows = [purchase(f"C{customer}", days_ago=ago) for customer in range(9) for ago in range(customer + 1, 240, 17)]
    shop = handmade(rows)
    matrix = shop.observations.features.copy()
    matrix[:, 3] = np.nextafter(matrix[:, 3], np.float32(np.inf))
    assert shop.check().rows == 9
    with pytest.raises(FeatureLeak, match=shop.observations.names[3]):
        shop.check(replace(shop.observations, features=matrix))


def every_target(shop):
    return {f"label_{name}": spend for name, spend in shop.observations.spend.items()}


def planted_columns(shop):
    """Columns that know the future, from the plain to the veiled."""
    chance = np.random.default_rng(5)
    n, total, bought = len(shop.observations), shop.observations.spend["total"], shop.observations.bought
    points, last_day = shop.detail("points"), shop.detail("last_purchase_day")
    return {
        **every_target(shop),
        "label_with_noise": total * chance.lognormal(0, 0.5, n),
        "label_upside_down": -np.sqrt(total),
        "bought": bought,
        "bought_with_noise": bought + chance.uniform(0, 0.9, n),
        "total_loyalty_points": points,
        "loyalty_status": np.digitize(points, np.nanquantile(points, [0.5, 0.85])),
        "last_purchase_date": last_day,
        "last_purchase_month": last_day // 30,
        "days_to_last_purchase": shop.observations.as_of.astype("datetime64[D]").astype(int) - last_day,
        "missing_unless_bought": np.where(bought > 0, 1.0, np.nan),
    }


PLANTED = (
    "label_total",
    "label_grocery",
    "label_other",
    "label_with_noise",
    "label_upside_down",
    "bought",
    "bought_with_noise",
    "total_loyalty_points",
    "loyalty_status",
    "last_purchase_date",
    "last_purchase_month",
    "days_to_last_purchase",
    "missing_unless_bought",
)


def test_every_planted_column_is_tried(shop):
    assert set(PLANTED) == set(planted_columns(shop))


@pytest.mark.parametrize("name", PLANTED)
def test_an_added_column_that_knows_the_future_is_caught_under_an_innocent_name(shop, name):
    with pytest.raises(
        FeatureLeak, match=r"^innocent cannot be rebuilt.*knows .*comes on or after as_of.*Leave it out"
    ):
        shop.judge(innocent=planted_columns(shop)[name])


def test_one_call_judges_added_columns_too(shop):
    with pytest.raises(FeatureLeak, match=r"^innocent cannot be rebuilt"):
        shop.check(shop.with_columns(innocent=shop.observations.spend["total"]))


def test_days_since_something_that_has_not_happened_are_caught(shop):
    days = np.where(np.arange(len(shop.observations)) == 7, -3, 5)
    with pytest.raises(FeatureLeak, match=r"days_since_visit is -3 for customer .* had not happened"):
        shop.judge(days_since_visit=days)


# Shops in which history tells everything, or nothing, or nearly nobody is there


def test_the_fee_of_regular_subscribers_is_no_secret():
    rows = [
        purchase(f"C{customer}", days_ago=30 * month + 1, money=5 + customer % 40, category="grocery")
        for customer in range(160)
        for month in range(10)
    ]
    shop = handmade(rows)
    fee = [5 + int(customer[1:]) % 40 for customer in shop.observations.customer_id]
    assert shop.observations.spend["total"][:5].tolist() == fee[:5]
    assert shop.judge(fee=fee).keys() == {"fee"}


@pytest.mark.parametrize("n_customers", [8, 40, 200])
def test_chance_is_not_accused(n_customers):
    chance = np.random.default_rng(n_customers)
    rows = [
        purchase(
            f"C{chance.integers(n_customers)}", days_ago=int(chance.integers(1, 300)), money=float(chance.gamma(2) + 1)
        )
        for _ in range(n_customers * 6)
    ]
    shop = handmade(rows)
    columns = np.random.default_rng(0).normal(size=(20, len(shop.observations)))
    assert len(shop.judge(**{f"chance_{number}": column for number, column in enumerate(columns)})) == 20


# Folds


def test_a_fold_that_learns_from_labels_of_its_own_window_is_refused(shop):
    class Careless(Observations):
        def ended_before(self, origin):
            return slice(0, int(np.searchsorted(self.as_of, np.datetime64(origin), "right")))

    refuse_overlapping_folds(shop.observations, shop.plan)
    with pytest.raises(LabelOverlap, match=rf"training rows as of .* begins on {shop.plan.origins[0]}"):
        shop.check(Careless(**vars(shop.observations)))


def test_windows_that_choose_may_not_reach_into_those_that_come_after(shop):
    plan, day = shop.plan, timedelta(days=1)
    for name, overlapping in {
        "selection": replace(plan, selection=(plan.report[0] - 29 * day,)),
        "calibration": replace(plan, calibration=(plan.selection[0] - 29 * day,)),
        "training rows": replace(plan, serving=plan.learning[-1] + 29 * day),
    }.items():
        with pytest.raises(LabelOverlap, match=rf"^The label of .*{name}.*Leave 30 days"):
            refuse_overlapping_folds(shop.observations, overlapping)


def test_rows_out_of_order_do_not_hide_an_overlap(shop):
    as_of = shop.observations.as_of.copy()
    as_of[0] = np.datetime64(date(2999, 1, 1))
    with pytest.raises(LabelOverlap, match="2999-01-01"):
        refuse_overlapping_folds(replace(shop.observations, as_of=as_of), shop.plan)


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_labels_that_are_no_sum_of_the_thirty_days_are_refused(few_features, factor):
    rows = [purchase(f"C{customer}", days_ago=ago) for customer in range(9) for ago in range(customer + 1, 240, 17)]
    shop = handmade(rows)
    told = {name: label * factor for name, label in shop.observations.spend.items()}
    with pytest.raises(FeatureLeak, match="sum to"):
        shop.check(replace(shop.observations, spend=told))
