"""The card's sections on what lost, calibration by tenth, intervals and subgroups; from JSON values, nothing is computed."""

from collections.abc import Mapping
from typing import Any

from ml_pipeline.card_text import render_number, render_share, render_table, shown_targets
from ml_pipeline.rules import RULE_BY_NAME
from ml_pipeline.schema import TOTAL_TARGET
from ml_pipeline.wording import plain

MISSED = ("below", "above")


def tried_section(performance: Mapping[str, Any]) -> str:
    """Every candidate that does not serve, per target, the best first."""
    lines = [
        "## What was tried and lost",
        "",
        "Beside each the score on the selection windows that it was behind what serves; below 0 it scored more, and lost "
        "because the lead was within chance, because of the level that nobody could know, or for having fewer parts (see "
        "how it was judged).",
        "",
    ]
    for target in shown_targets(performance["tried"]):
        tried = performance["tried"][target]
        lost = [f"{candidate_title(each)} ({each['behind']:+.3f})" for each in tried["lost"]]
        lines += [f"- **{target}**, served by {_served_title(tried['served'])} ({render_number(tried['score'])}): "]
        lines[-1] += (", ".join(lost) or "nothing else was tried") + "."
        lines += [f"  Left out: {plain(each['name'])} ({each['why']})." for each in tried["left_out"]]
    return "\n".join(lines)


def reconciliation_section(performance: Mapping[str, Any]) -> str:
    """What agreement of total and parts gains or costs, by every method that was tried; the served one is marked."""
    found = performance["reconciliation"]
    if not found["tried"]:
        return f"## Total and parts made to agree\n\n{found['why']}"
    rows = []
    for target, before in found["before"].items():
        rows.append([target, "before", *(render_number(value) for value in before.values()), "", ""])
        for name, tried in found["tried"].items():
            gains = [f"{tried[block][target]:+.2%}" for block in ("selection_gains", "report_gains")]
            mark = " ← serves" if name == found["method"] else ""
            metrics = [render_number(value) for value in tried["metrics"][target].values()]
            rows.append([target, f"{plain(name)}{mark}", *metrics, *gains])
    header = ["target", "method", "capped R²", "D²", "nGini", "decile MAPE", "bias", "gain, selection", "gain, report"]
    return "\n\n".join(
        [
            "## Total and parts made to agree",
            f"Served: {plain(found['method'])}. {found['why']}",
            found["rule"],
            "On the report windows, with what each method had learned before them:",
            render_table(header, rows),
        ]
    )


def candidate_title(candidate: Mapping[str, Any]) -> str:
    """A rule by its title, a model by its plain name."""
    return RULE_BY_NAME[candidate["name"]].title if candidate["kind"] == "rule" else plain(candidate["name"])


def _served_title(name: str) -> str:
    return RULE_BY_NAME[name].title if name in RULE_BY_NAME else plain(name)


def deciles_section(performance: Mapping[str, Any]) -> str:
    """Mean predicted and mean actual by tenth: the plot, the total in figures, and each target's worst tenth."""
    total = [
        [
            str(tenth["tenth"]),
            f"{tenth['rows']:,}",
            *(render_number(tenth[key]) for key in ("predicted", "actual")),
            render_share(tenth["share_spending"]),
        ]
        for tenth in performance["deciles"][TOTAL_TARGET]
    ]
    worst = []
    for target in shown_targets(performance["deciles"]):
        tenths = performance["deciles"][target]
        one = max(tenths, key=lambda tenth: abs(tenth["predicted"] - tenth["actual"]) * tenth["rows"])
        worst.append([target, str(one["tenth"]), *(render_number(one[key]) for key in ("predicted", "actual"))])
    return "\n\n".join(
        [
            "## Calibration by tenth of prediction",
            "What serves on the report windows, all windows together.",
            *images(performance, "deciles", "Mean predicted and mean actual spend by tenth of prediction"),
            "The total, lowest predictions first:",
            render_table(["tenth", "rows", "mean predicted", "mean actual", "share that spent"], total),
            "The tenth of each target in which most money was wrong:",
            render_table(["target", "tenth", "mean predicted", "mean actual"], worst),
        ]
    )


def images(performance: Mapping[str, Any], kind: str, title: str) -> list[str]:
    """The plots of a kind, by paths relative to the card."""
    return [f"![{title}]({path})" for path in performance["plots"][kind]]


def intervals_section(performance: Mapping[str, Any]) -> str:
    """Coverage by side, overall and by tenth, the interval score beside plain quantiles', and sums over many customers."""
    rows, worst, scores, sums = [], [], [], []
    for target in shown_targets(performance["intervals"]):
        interval = performance["intervals"][target]
        rows.append(_coverage(target, interval))
        if "active_90d" in interval:
            rows.append(_coverage(f"{target}, active in the last 90 days", interval["active_90d"]))
        worst.append([target, *(cell for side in MISSED for cell in _worst_tenth(interval, side))])
        both = (interval["interval_score"], interval["empirical_interval_score"])
        scores.append([target, *(render_number(each) for each in (*both, interval["mean_width"]))])
        if interval["sums"]:
            sums.append([target, *_of_sums(interval["sums"])])
    total = performance["intervals"][TOTAL_TARGET]
    sides = zip(*(total[f"{name}_by_decile"] for name in ("buying", *MISSED)), strict=True)
    present = {tenth["tenth"] for tenth in performance["deciles"][TOTAL_TARGET]}
    tenths = [
        [str(number), *(render_share(share) for share in shares)]
        for number, shares in enumerate(sides, start=1)
        if number in present
    ]
    parts = [
        "## 80 % intervals",
        "Learned on the selection windows, measured on the report windows; what serves learns from both. Each side should "
        "miss 10 %; below can miss nobody where the lower end is 0, and above hardly anybody where hardly anybody spends, so "
        "more than 80 % may be covered.",
        *images(performance, "coverage", "Customers outside of their interval by tenth of prediction and side"),
        render_table(["", "covered", *MISSED], rows),
        "The total by tenth of prediction, lowest first:",
        render_table(["tenth", "share that spent", *MISSED], tenths),
        "The worst tenth of each target and side:",
        render_table(["target", "tenth", "below", "tenth", "above"], worst),
        "Interval score (mean width plus a fine for what lies outside, Gneiting & Raftery 2007; lower is better) beside that "
        "of the empirical quantiles by tenth:",
        render_table(["target", "interval score", "of empirical quantiles", "mean width"], scores),
    ]
    if sums:
        parts += [
            "Sums over random sets of 50 to 2,000 customers (all of them where there are fewer), whose errors move together, have "
            "intervals of their own. The sets of one window rise and fall together: a share far from 80 % tells how that month "
            "went as well:",
            render_table(["target", "sets", "covered", *MISSED, "mean width ÷ sum"], sums),
        ]
    return "\n\n".join(parts)


def _coverage(title: str, interval: Mapping[str, Any]) -> list[str]:
    return [title, *(render_share(interval[key]) for key in ("covered", *MISSED))]


def _worst_tenth(interval: Mapping[str, Any], side: str) -> list[str]:
    """Number and share of the tenth with most misses on one side; the first of equal ones."""
    shares = interval[f"{side}_by_decile"]
    return [str(shares.index(max(shares)) + 1), render_share(max(shares))]


def _of_sums(sums: Mapping[str, Any]) -> list[str]:
    shares = (render_share(sums[key]) for key in ("covered", *MISSED))
    return [f"{sums['sets']:,}", *shares, render_share(sums["mean_relative_width"])]


def subgroups_section(performance: Mapping[str, Any]) -> str:
    """The total for parts of the customers, beside the best simple rule; buying and intervals in a second table."""
    subgroups = performance["subgroups"]
    groups = [group for group in subgroups["groups"] if group["figures"]]
    rule = _served_title(performance["targets"][TOTAL_TARGET]["best_rule"])
    measured = ("mean_actual", "mean_predicted", "bias", "bias_error", "mae", "capped_r2", "d2", "normalised_gini")
    money = [
        [
            group["title"],
            f"{group['customers']:,}",
            render_share(group["figures"]["share_buying"]),
            *(render_number(group["figures"][name]) for name in measured),
            *(render_number(group["figures"]["best_rule"][name]) for name in ("bias", "capped_r2", "normalised_gini")),
        ]
        for group in groups
    ]
    buying = [
        [
            group["title"],
            *(render_number(group["figures"][name]) for name in ("mean_probability", "auc", "brier")),
            *(render_share(group["figures"][name]) for name in ("covered", *MISSED)),
        ]
        for group in groups
    ]
    header = [
        "",
        "customers",
        "bought",
        "mean actual",
        "mean predicted",
        "bias",
        "± SE",
        "MAE",
        "capped R²",
        "D²",
        "nGini",
    ]
    left_out = [f"- {group['title']}: {group['why']}" for group in subgroups["groups"] if not group["figures"]]
    return "\n\n".join(
        [
            "## Subgroups",
            f"The total, as it is served, on the report windows together, beside the best simple rule ({rule}). A customer's "
            "region is that of the store where most purchases were made before as_of. A group of one kind of customers is narrower than "
            "the whole: R², D² and nGini within it are lower even where the model is as good. SE is the standard error of the bias.",
            render_table([*header, "rule: bias", "rule: capped R²", "rule: nGini"], money),
            "The purchase probability and the 80 % interval of the total:",
            render_table(["", "mean probability", "AUC", "Brier", "covered", *MISSED], buying),
            *(["Without figures:\n\n" + "\n".join(left_out)] if left_out else []),
            *_of_regions(subgroups),
        ]
    )


def _of_regions(subgroups: Mapping[str, Any]) -> list[str]:
    if not subgroups["regions_known"]:
        return ["No store region is known: there is no table of stores, or it names none."]
    if not subgroups["regions_merged"]:
        return []
    return [f"Put together under other regions: {', '.join(subgroups['regions_merged'])}."]


def limits_section(performance: Mapping[str, Any]) -> str:
    """What the bundle is known not to know."""
    return "\n".join(["## Known limits", "", *(f"- {limit}" for limit in performance["limits"])])
