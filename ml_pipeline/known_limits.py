"""What a bundle is known not to know, in sentences: from its own measurements wherever there are some."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from ml_pipeline.card_text import shown_targets
from ml_pipeline.schema import HORIZON_DAYS, TOTAL_TARGET
from ml_pipeline.subgroups import ONE_PURCHASE

TWO_YEARS_DAYS = 730
FEW_BUYERS = 200  # customers who spent, in all report windows: with fewer a figure is mostly chance
FAR_OFF = (0.8, 1.25)  # bias of a group that is still called right
FEWER_THAN_ALL = 0.9  # of those who ever bought; the rest may just be new
MUCH_UNKNOWN = 0.05  # of the rows without a region
MISSES = {True: (0.08, 0.12), False: (0.06, 0.14)}  # on one side of an 80 % interval: of the total, of its parts
ASKED_MISS = 0.1
MANY_SPEND = 0.2  # of a tenth: where fewer spend, an interval that reaches down to 0 cannot miss often enough
SUMS_COVERED = (0.70, 0.92)  # of the sums over sets of customers, by their 80 % interval
MEASURED = {"capped_r2": "capped R²", "d2": "D²", "normalised_gini": "nGini"}


def known_limits(content: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    """One sentence or two per limit, those of this bundle first.

    content: a bundle's metadata; report: its backtest, with `data` (first_day, last_day; see `model_card.complete_report`).
    """
    return [
        *_of_history(content, report),
        *_of_windows(report),
        *_of_buyers(report),
        *_of_rules(report),
        *_of_intervals(report),
        *_of_sums(report["intervals"]),
        *_of_groups(report["subgroups"]),
        *_of_newcomers(content, report["subgroups"]),
        *_of_any_bundle(content),
    ]


def _of_history(content: Mapping[str, Any], report: Mapping[str, Any]) -> Iterator[str]:
    first = report["data"]["first_day"]
    days = (date.fromisoformat(content["as_of"]) - date.fromisoformat(first)).days if first else None
    if days is not None and days < TWO_YEARS_DAYS:
        yield (
            f"The history spans {days:,} days: no season was seen twice, so a holiday or a yearly sale cannot be told from "
            "chance and is not foreseen."
        )
    if content["rules_only"]:
        yield f"Simple rules alone serve, because {content['rules_only']}."
    for group in content["unused_features"]:
        yield f"Not learned from {_counted(len(group['features']), 'feature')}, since {group['reason']}."
    trained = content["trained_on"]["customers"]
    if trained < FEWER_THAN_ALL * content["buyers"]:
        yield (
            f"Learned from {trained:,} of {content['buyers']:,} customers who ever bought: the others came too late to be seen "
            "in a past window, or were left out by lot."
        )


def _of_windows(report: Mapping[str, Any]) -> Iterator[str]:
    days = report["report_days"]
    text = f"Every figure comes from {_counted(len(days), 'window')} of {HORIZON_DAYS} days (from {', '.join(days)})"
    if len(days) == 1:
        yield f"{text}: one window cannot tell a good model from a kind month."
    else:
        yield f"{text}: how the model does in other months of the year was not measured."


def _of_buyers(report: Mapping[str, Any]) -> Iterator[str]:
    spenders = {
        target: round(sum(tenth["rows"] * tenth["share_spending"] for tenth in report["deciles"][target]))
        for target in shown_targets(report["deciles"])
    }
    few = [f"{target} ({count:,})" for target, count in spenders.items() if count < FEW_BUYERS]
    if few:
        yield (
            f"Few customers spent anything in the report windows on {', '.join(few)}: with fewer than {FEW_BUYERS} the "
            "figures are mostly chance."
        )


def _of_rules(report: Mapping[str, Any]) -> Iterator[str]:
    contests = {target: report["targets"][target] for target in shown_targets(report["targets"])}
    ruled = [target for target, contest in contests.items() if not contest["beats_best_rule"]]
    if ruled:
        yield f"A simple rule serves {', '.join(ruled)}: it knows at most the customer's own past sums."
    if report["probability"]["served"].get("name") == "rate":
        yield "The purchase probability is the same for everyone: no classifier told more."
    for target, contest in contests.items():
        lost = [MEASURED[metric] for metric, better in contest["beats_best_rule_on_report"].items() if not better]
        if contest["beats_best_rule"] and lost:
            yield f"On the report windows what serves {target} is not better than the best simple rule on {', '.join(lost)}."


def _of_intervals(report: Mapping[str, Any]) -> Iterator[str]:
    for target in shown_targets(report["intervals"]):
        low, high = MISSES[target == TOTAL_TARGET]
        rows = max(tenth["rows"] for tenth in report["deciles"][target])
        chance = 2 * (ASKED_MISS * (1 - ASKED_MISS) / rows) ** 0.5
        failures = _failures(report["intervals"][target], low, high, chance)
        if failures:
            yield (
                f"The 80 % interval of {target} misses by more or less than {low:.0%} to {high:.0%}: {'; '.join(failures)}. "
                f"Chance alone moves a tenth of {rows:,} rows by ±{100 * chance:.1f} points; what is further off is marked *."
            )


def _of_sums(intervals: Mapping[str, Any]) -> Iterator[str]:
    least, most = SUMS_COVERED
    measured = {target: intervals[target]["sums"] for target in shown_targets(intervals)}
    off = [
        f"{sums['covered']:.0%} of {target}"
        for target, sums in measured.items()
        if sums and not least <= sums["covered"] <= most
    ]
    if off:
        yield (
            f"The 80 % interval of a sum over many customers covered {', '.join(off)}: the sets of one window rise and fall "
            "together, so this tells how that month went as much as how sure a sum is."
        )


def _failures(interval: Mapping[str, Any], low: float, high: float, chance: float) -> list[str]:
    """Each measured share on one side that is not as asked for; too few below are no failure, nor above where few spend.

    chance: how far a tenth may be off without meaning anything; all ten together a third of it.
    """
    found = []
    for side in ("above", "below"):
        least = low if side == "above" else 0.0
        if not least <= interval[side] <= high:
            found.append(f"{_off(interval[side], low, high, chance / 10**0.5)} {side} in all")
        missed = zip(interval[f"{side}_by_decile"], interval["buying_by_decile"], strict=True)
        wrong = [
            f"{_off(share, low, high, chance)} in tenth {number}"
            for number, (share, spent) in enumerate(missed, start=1)
            if not (least if spent >= MANY_SPEND else 0.0) <= share <= high
        ]
        if wrong:
            found.append(f"{side} {', '.join(wrong)}")
    return found


def _off(share: float, low: float, high: float, chance: float) -> str:
    return f"{share:.1%}{'*' if max(low - share, share - high) > chance else ''}"


def _of_groups(subgroups: Mapping[str, Any]) -> Iterator[str]:
    least, most = FAR_OFF
    everyone = subgroups["groups"][0]
    others = [group for group in subgroups["groups"][1:] if group["rows"] != everyone["rows"]]
    told = [(group, group["figures"]) for group in (everyone, *others) if group["figures"]]
    off = [
        f"{group['title']} ({figures['bias']:.2f} × what came, {_money(figures['mean_predicted'])} instead of "
        f"{_money(figures['mean_actual'])} a customer{_give_or_take(figures['bias_error'])})"
        for group, figures in told
        if figures["bias"] is not None and not least <= figures["bias"] <= most
    ]
    if off:
        yield f"The sum predicted for a group was too high or too low by more than a fifth: {'; '.join(off)}."
    few = [f"{group['title']} ({group['why']})" for group in subgroups["groups"] if not group["figures"]]
    if few:
        yield f"Not measured: {'; '.join(few)}."
    if subgroups["regions_merged"]:
        yield (
            f"Too few customers (fewer than {subgroups['fewest_customers']}) or too many regions for figures of their own: "
            f"{', '.join(subgroups['regions_merged'])}."
        )
    unknown = 1 - subgroups["regions_known"]
    if unknown > MUCH_UNKNOWN:
        yield f"For {unknown:.0%} of the rows the region of the customer's store is not known."


def _money(amount: float) -> str:
    return f"{amount:,.0f}" if abs(amount) >= 10 else f"{amount:.2f}"


def _give_or_take(error: float | None) -> str:
    return "" if error is None else f", standard error of the ratio {error:.2f}"


def _of_newcomers(content: Mapping[str, Any], subgroups: Mapping[str, Any]) -> Iterator[str]:
    if content["never_bought"]["observations"]:
        yield "Known customers without any purchase get one answer per registration age."
    else:
        yield "Known customers without any purchase are answered with 0, which is no estimate: no past one was seen."
    measured = any(group["name"] == ONE_PURCHASE and group["figures"] for group in subgroups["groups"])
    how_well = "How well that goes stands among the subgroups." if measured else "How well that goes was not measured."
    yield f"Of a customer with one purchase little is known: the answer leans on others like him. {how_well}"


def _of_any_bundle(content: Mapping[str, Any]) -> Iterator[str]:
    multiple = content["serving"][TOTAL_TARGET]["cap_multiple"]
    yield (
        f"Nobody is predicted more than {multiple:g} × the largest {HORIZON_DAYS}-day spend seen. Whoever lies outside of what "
        "was trained on is marked `extrapolated`: trees answer as for the nearest customers that they saw, rules and rates "
        "go on with what was spent."
    )
    yield "Intervals are about one customer: their ends must not be added up; the interval of a sum is another one."
    yield f"What happens from {content['as_of']} on (new prices, a campaign, a closed store) is not known to the model."


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
