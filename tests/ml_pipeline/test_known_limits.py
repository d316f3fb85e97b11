"""What a card admits: each limit where the bundle has it, and not where it has not."""

import copy

import pytest

from ml_pipeline.known_limits import known_limits

FIGURES = {"bias": 1.0, "bias_error": 0.02, "mean_actual": 100.0, "mean_predicted": 100.0}
CONTENT = {
    "as_of": "2026-01-01",
    "unused_features": [],
    "rules_only": None,
    "trained_on": {"customers": 95},
    "buyers": 100,
    "never_bought": {"observations": 10},
    "serving": {"total": {"cap_multiple": 2.0}},
}


def contest(**changed):
    held = dict.fromkeys(("capped_r2", "d2", "normalised_gini"), True)
    return {"beats_best_rule": True, "beats_best_rule_on_report": held, **changed}


def interval(**changed):
    return {
        "above": 0.1,
        "below": 0.05,
        "above_by_decile": [0.0] * 3 + [0.1] * 7,
        "below_by_decile": [0.0] * 8 + [0.1] * 2,
        "buying_by_decile": [0.05] * 3 + [0.5] * 7,
        "sums": {"covered": 0.8},
        **changed,
    }


def report(**changed):
    tenths = [{"tenth": n, "rows": 400, "share_spending": 0.3} for n in range(1, 11)]
    facts = {
        "data": {"first_day": "2023-01-01", "last_day": "2025-12-31"},
        "report_days": ["2025-11-02", "2025-12-02"],
        "deciles": {"total": tenths, "grocery": tenths, "other": tenths},
        "targets": {"total": contest(), "grocery": contest(), "other": contest()},
        "probability": {"served": {"name": "lightgbm_purchase"}},
        "intervals": {"total": interval(), "grocery": interval(), "other": interval()},
        "subgroups": {
            "fewest_customers": 50,
            "groups": [
                {"name": name, "title": name, "rows": rows, "figures": dict(FIGURES)}
                for name, rows in (("everyone", 4000), ("one_purchase", 300))
            ],
            "regions_known": 1.0,
            "regions_merged": [],
        },
    }
    return copy.deepcopy({**facts, **changed})


def limits(told=None, **content):
    return " ".join(known_limits({**CONTENT, **content}, told or report()))


def test_a_bundle_of_which_everything_is_known_still_has_the_limits_of_any():
    text = limits()
    assert len(known_limits(CONTENT, report())) == 6
    assert "2 windows of 30 days (from 2025-11-02, 2025-12-02)" in text
    assert "What happens from 2026-01-01 on" in text
    assert "must not be added up" in text


def with_group(**group):
    told = report()
    told["subgroups"]["groups"].append(
        {"name": "dormant", "title": "dormant", "rows": 40, "why": "fewer than 50 customers", "figures": None, **group}
    )
    return told


def with_subgroups(**changed):
    told = report()
    told["subgroups"] |= changed
    return told


FEW_TENTHS = [{"tenth": n, "rows": 40, "share_spending": 0.1} for n in range(1, 11)]
CASES = {
    "short history": (report(data={"first_day": "2025-01-01", "last_day": "2025-12-31"}), {}, "spans 365 days"),
    "unused features": (
        None,
        {"unused_features": [{"reason": "so it is", "features": ["a", "b"]}]},
        "Not learned from 2 features, since so it is",
    ),
    "rules only": (
        None,
        {"rules_only": "the history is 99 days"},
        "Simple rules alone serve, because the history is 99",
    ),
    "a sample": (None, {"trained_on": {"customers": 80}}, "Learned from 80 of 100 customers"),
    "one window": (report(report_days=["2025-12-02"]), {}, "1 window of 30 days (from 2025-12-02): one window cannot"),
    "few buyers": (
        report(deciles={"total": FEW_TENTHS, "grocery": FEW_TENTHS, "other": FEW_TENTHS}),
        {},
        "total (40), grocery (40), other (40)",
    ),
    "a rule serves": (
        report(targets={"total": contest(), "grocery": contest(beats_best_rule=False), "other": contest()}),
        {},
        "A simple rule serves grocery:",
    ),
    "not held": (
        report(targets={"total": contest(beats_best_rule_on_report={"d2": False}), "other": contest()}),
        {},
        "what serves total is not better than the best simple rule on D².",
    ),
    "one probability": (report(probability={"served": {"name": "rate"}}), {}, "probability is the same for everyone"),
    "group far off": (
        with_group(figures={**FIGURES, "bias": 3.0, "mean_predicted": 21.0, "mean_actual": 7.0}),
        {},
        "dormant (3.00 × what came, 21 instead of 7.00 a customer, standard error of the ratio 0.02)",
    ),
    "group not measured": (with_group(), {}, "Not measured: dormant (fewer than 50 customers)."),
    "merged regions": (with_subgroups(regions_merged=["East", "West"]), {}, "East, West"),
    "unknown regions": (with_subgroups(regions_known=0.6), {}, "For 40% of the rows"),
    "sums that were not covered": (
        report(intervals={"total": interval(sums=None), "grocery": interval(sums={"covered": 0.031})}),
        {},
        "sum over many customers covered 3% of grocery: the sets",
    ),
    "nobody with one purchase": (
        with_subgroups(groups=report()["subgroups"]["groups"][:1]),
        {},
        "that goes was not measured",
    ),
    "nobody waited": (None, {"never_bought": {"observations": 0}}, "which is no estimate"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_limit_is_said_where_the_bundle_has_it_and_only_there(case):
    told, content, words = CASES[case]
    assert words in limits(told, **content)
    assert words not in limits()


# Intervals


def said_of(**intervals):
    told = report()
    told["intervals"] |= {name: interval(**changed) for name, changed in intervals.items()}
    return " ".join(line for line in known_limits(CONTENT, told) if line.startswith("The 80 % interval of"))


def test_intervals_as_asked_for_are_not_confessed():
    assert said_of() == ""


def test_too_many_above_are_named_by_tenth_and_beside_what_chance_does():
    text = said_of(total={"above_by_decile": [0.0] * 9 + [0.131]})
    assert "above" in text
    assert "13.1% in tenth 10" in text
    assert "Chance alone moves a tenth of 400 rows by ±3.0 points" in text


def test_what_chance_cannot_have_done_is_marked():
    text = said_of(total={"above_by_decile": [0.0] * 3 + [0.1] * 4 + [0.049, 0.149, 0.151], "above": 0.131})
    assert "13.1%* above in all" in text, "all ten together are surer than one"
    assert "4.9%* in tenth 8, 14.9% in tenth 9, 15.1%* in tenth 10" in text


def test_a_group_that_is_everyone_is_not_said_twice():
    told = with_group(rows=4000, figures={**FIGURES, "bias": 3.0})
    assert "dormant" not in limits(told)


def test_too_few_above_count_only_where_many_spend():
    assert said_of(total={"above_by_decile": [0.0] * 3 + [0.1] * 7}) == ""
    assert "0.0%* in tenth 4" in said_of(total={"above_by_decile": [0.0] * 4 + [0.1] * 6})


def test_too_many_above_count_where_few_spend_too():
    assert "13.0% in tenth 1" in said_of(total={"above_by_decile": [0.13] + [0.0] * 2 + [0.1] * 7})


def test_nobody_below_is_no_failure_and_too_many_are():
    assert said_of(total={"below": 0.0, "below_by_decile": [0.0] * 10}) == ""
    assert "12.5% below in all" in said_of(total={"below": 0.125})


def test_parts_may_be_two_points_further_off_than_the_total():
    off = {"above": 0.13}
    assert "13.0%* above in all" in said_of(total=off)
    assert said_of(grocery=off) == ""
    assert "14.1% above in all" in said_of(grocery={"above": 0.141})
