"""The model card: what was trained on what, and every metric beside the best simple rule's on the same rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_pipeline.candidates import ALL
from ml_pipeline.card_sections import (
    candidate_title,
    deciles_section,
    images,
    intervals_section,
    limits_section,
    reconciliation_section,
    subgroups_section,
    tried_section,
)
from ml_pipeline.card_text import render_number, render_share, render_table, shown_targets
from ml_pipeline.known_limits import known_limits
from ml_pipeline.plots import plot_paths
from ml_pipeline.rules import RULE_BY_NAME
from ml_pipeline.schema import TOTAL_TARGET
from ml_pipeline.snapshot import SEGMENTS, money_columns
from ml_pipeline.summary_card import summary_section
from ml_pipeline.wording import plain

_OF_ITS_KIND = (
    "What serves is then fitted anew on all {days} days, and corrections, calibration and usual shares learn from the report "
    "windows too: the figures of this card are of its kind and not of itself."
)
HOW_TO_READ = (
    "**bias** = Σ predicted / Σ actual: 1 is right in sum. MAE is never read without it: predicting nearly nothing can win MAE.",
    "**capped R²**: both sides clipped at the 99.5th percentile of actual spend, so that one wholesale order does not decide.",
    "**D²**: share of Tweedie deviance (power 1.5) explained, predictions floored at 1 % of the actual mean.",
    "**nGini**: how well customers are ranked, 1 as the truth would, 0 at random. **Spearman** is a rank correlation.",
    "**decile MAPE**: by tenth of prediction, mean predicted against mean actual; 0 is right at every level. Denominators "
    "are floored at 5 % of the actual mean.",
    "**bootstrap SD**: how far chance alone moves a figure when customers are drawn anew. How one month differs from "
    "another is not in it; for that look at the windows side by side.",
    "**AUC**: how often a buyer has the higher probability of two customers, 0.5 at random. **Brier**: mean squared error of "
    "the probability, lower is better.",
    "**below**, **above**: share of customers who spent less, or more, than their 80 % interval says; 10 % each is asked for.",
    "Names: `rate` learns on top of the customer's own past rate; a `hurdle` is the probability of buying times the amount "
    "of a purchase; `calibrated` is corrected by what it was wrong by on earlier windows; `share of total` is the usual share "
    "of the customer times the served total; `a + b` is the mean of both.",
)
METRIC_TITLES = {
    "mae": "MAE",
    "bias": "bias",
    "rmse": "RMSE",
    "r2": "R²",
    "capped_r2": "capped R²",
    "d2": "D²",
    "spearman": "Spearman",
    "normalised_gini": "nGini",
    "decile_mape": "decile MAPE",
}
POPULATION_TITLES = {
    "all": "every customer with a purchase before as_of",
    "active_90d": "customers active in the last 90 days",
}


def complete_report(
    backtest: Mapping[str, Any], content: Mapping[str, Any], data_report: Mapping[str, Any]
) -> dict[str, Any]:
    """The backtest with everything else that the card says: the card can be written from it and the metadata alone.

    content: a bundle's metadata. Adds `data`, `verdicts` (one per target), `limits` and `how_to_read` as sentences, and
    `plots`, by kind the paths relative to the card.
    """
    facts = {name: data_report.get(name) for name in ("first_day", "last_day")}
    counted = ("rows_in", "kept", "quarantined", "money_quarantined")
    tables = {name: {key: table[key] for key in counted} for name, table in data_report["tables"].items()}
    report = {**backtest, "data": {**facts, "tables": tables}}
    return {
        **report,
        "verdicts": {target: verdict_of(contest) for target, contest in backtest["targets"].items()},
        "limits": known_limits(content, report),
        "how_to_read": list(HOW_TO_READ),
        "plots": plot_paths(shown_targets(backtest["deciles"])),
    }


def write_model_card(
    path: Path, content: Mapping[str, Any], performance: Mapping[str, Any], targets: Sequence[str]
) -> None:
    """Writes the card as Markdown from a bundle's metadata and its `complete_report`; nothing is computed here."""
    sections = [
        _summary(content, performance),
        _data(content, performance["data"]),
        _windows(content, performance),
        _leaks(performance),
        _served(content, performance, targets),
        "\n".join(["## How to read the tables", "", *(f"- {sentence}" for sentence in performance["how_to_read"])]),
        *(
            _target_table(target, performance, population)
            for target in targets_of(targets)
            for population in POPULATION_TITLES
        ),
        tried_section(performance),
        deciles_section(performance),
        reconciliation_section(performance),
        _exceeding(performance, targets),
        _probability(performance),
        intervals_section(performance),
        subgroups_section(performance),
        summary_section(performance),
        limits_section(performance),
    ]
    path.write_text("\n\n".join(section for section in sections if section) + "\n", "utf-8")


def targets_of(targets: Sequence[str]) -> tuple[str, ...]:
    """Everything that a table is printed for, the total first; without named targets the rest is the total itself."""
    return money_columns(targets) if targets else (TOTAL_TARGET,)


def candidate_rows(contest: Mapping[str, Any], population: str) -> list[list[str]]:
    """One row per candidate, rules first, then what is served after reconciliation; the served one is marked."""
    rows = []
    for candidate in contest["candidates"]:
        title = candidate_title(candidate)
        mark = " ← serves" if candidate["name"] == contest["served"] else ""
        if candidate["metrics"] is None:
            continue
        metrics = candidate["metrics"].get(population) or {}
        rows.append([f"{title}{mark}", *(render_number(metrics.get(name)) for name in METRIC_TITLES)])
    reconciled = contest["reconciled"].get(population) or {}
    rows.append(
        ["served, total and parts made to agree", *(render_number(reconciled.get(name)) for name in METRIC_TITLES)]
    )
    return rows


def verdict_of(contest: Mapping[str, Any]) -> str:
    """Whether a model serves, and whether it held up on the windows that did not choose it."""
    rule = RULE_BY_NAME[contest["best_rule"]].title
    if all(candidate["kind"] == "rule" for candidate in contest["candidates"]):
        return f"The best simple rule ({rule}) serves; no model took part."
    if not contest["beats_best_rule"]:
        margin = _margin(contest)
        return f"No model beat the best simple rule ({rule}) on the selection windows{margin}: the rule serves."
    held = contest["beats_best_rule_on_report"]
    names = METRIC_TITLES
    won = [names[metric] for metric, better in held.items() if better]
    lost = [names[metric] for metric, better in held.items() if not better]
    text = f"{plain(contest['served'])} beat the best simple rule ({rule}) on the selection windows{_margin(contest)} and serves."
    if won:
        text += f" On the report windows it is better on {' and '.join(won)}."
    if lost:
        text += f" On the report windows it is **not** better on {' and '.join(lost)}."
    chance = [names[metric] for metric, better in held.items() if better and _is_chance(contest, metric)]
    if chance:
        text += f" Its lead on {' and '.join(chance)} is within two bootstrap SDs: chance may have given it."
    return text


def _is_chance(contest: Mapping[str, Any], metric: str) -> bool:
    """Whether the lead over the best rule on the report windows is no more than chance may give."""
    deviation = contest.get("noise", {}).get(metric, {}).get("lead")
    lead = _lead(contest, metric)
    return deviation is not None and lead is not None and lead <= 2 * deviation


def _lead(contest: Mapping[str, Any], metric: str) -> float | None:
    """By how much what serves is above the best rule on the report windows."""
    own, rule = contest["reconciled"]["all"].get(metric), _best_rule(contest)["metrics"]["all"].get(metric)
    return None if own is None or rule is None else own - rule


def _best_rule(contest: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(each for each in contest["candidates"] if each["name"] == contest["best_rule"])
    return found


def _margin(contest: Mapping[str, Any]) -> str:
    """By how much, in scores, and how much of that chance alone would give."""
    if contest["selection_advantage"] is None:
        return " (there was nothing for a model to learn)"
    return f" (score {contest['selection_advantage']:+.3f}, bootstrap SD {contest['selection_noise']:.3f})"


def _summary(content: Mapping[str, Any], backtest: Mapping[str, Any]) -> str:
    trained = content["trained_on"]
    return (
        f"# Model card\n\nSpend of each customer in the {content['horizon_days']} days from `as_of`, in {content['currency']} "
        f"({content['spend']} of returns), in total and per target. Trained as of {content['as_of']} "
        f"(nothing on or after that day was read), profile `{content['profile']}`, on {trained['observations']:,} observations: "
        f"{trained['customers']:,} customers at {trained['as_of_days']} days from {trained['first_as_of']} to "
        f"{trained['last_as_of']}, {len(content['features'])} features.{_sampled(content)}\n\n"
        f"**Total:** {backtest['verdicts']['total']}"
    )


def _sampled(content: Mapping[str, Any]) -> str:
    """What was not used, where something was not."""
    text = ""
    if content["buyers"] > content["trained_on"]["customers"]:
        last = content["trained_on"]["last_as_of"]
        text += (
            f" They are {content['trained_on']['customers']:,} of the {content['buyers']:,} who ever bought; the others first "
            f"bought on or after {last} or, in a shop with more customers than a training takes or was asked to take, were left "
            "out by lot."
        )
    if content.get("algorithm", ALL) != ALL:
        text += f" Only {plain(content['algorithm'])} took part, beside the simple rules and the usual shares, as was asked."
    if content["rules_only"]:
        text += f" **Rules only**, because {content['rules_only']}."
    for group in content["unused_features"]:
        text += f" Not learned from, since {group['reason']}: {', '.join(group['features'])}."
    return text


def _data(content: Mapping[str, Any], data_report: Mapping[str, Any]) -> str:
    lines = ["## Data", "", f"Last day of the data: {data_report['last_day']}."]
    rows = [
        [
            f"`{name}`",
            *(f"{facts[key]:,}" for key in ("rows_in", "kept", "quarantined")),
            _money(facts, "money_quarantined"),
        ]
        for name, facts in data_report["tables"].items()
    ]
    lines += ["", render_table(["table", "rows in", "kept", "set aside", "money set aside"], rows)]
    lines += ["", "Every rule of the cleaning with its count is in `data_report.json` of this version."]
    if content["net_floor"]:
        lines.append("")
    for target, floor in (content["net_floor"] or {}).items():
        if floor["floored_rows"]:
            lines += [
                f"- Returns exceeded purchases of {target} in {floor['floored_rows']:,} of {floor['rows']:,} training windows of "
                f"a customer; their net spend counts as 0, which leaves out {floor['floored_money']:,.2f} of returns."
            ]
    libraries = ", ".join(f"{name} {version}" for name, version in content["libraries"].items())
    return "\n".join([*lines, "", f"Made with {libraries}."])


def _money(facts: Mapping[str, Any], key: str) -> str:
    return "" if facts[key] is None else f"{float(facts[key]):,.2f}"


def _windows(content: Mapping[str, Any], backtest: Mapping[str, Any]) -> str:
    if content["rules_only"]:
        return (
            f"## How it was judged\n\nRules only, because {content['rules_only']}. The rule that serves was selected on "
            f"{', '.join(backtest['selection_days'])}, and the tables below report {', '.join(backtest['report_days'])}. "
            f"What a rule learns (the mean) it learned from windows that had ended before.\n\n{backtest['selection_rule']}"
        )
    return (
        "## How it was judged\n\n"
        f"Rolling origin in three blocks of windows: a model that is judged on a block learned only from rows whose "
        f"{content['horizon_days']}-day label had ended before the block began. What predictions are wrong by was first "
        f"learned on {', '.join(backtest['calibration_days'])}, what serves was selected on "
        f"{', '.join(backtest['selection_days'])}, and the tables below report {', '.join(backtest['report_days'])} "
        f"(means over windows). The number of boosting rounds was found on other customers than those learned from, in the "
        f"windows before all of these.{_search(content)}\n\n{backtest['selection_rule']}\n\n"
        f"{_OF_ITS_KIND.format(days=content['trained_on']['as_of_days'])}"
    )


def _search(content: Mapping[str, Any]) -> str:
    """What came of the search for the shape of the trees, on windows before all judged ones; nothing without a search."""
    trials = content["search"]["trials"]
    if not trials:
        return ""
    chosen = {name: value for name, value in trials[0].items() if name != "score"} != content["search"]["chosen"]
    outcome = "another than the default was clearly better and is used" if chosen else "none was clearly better"
    return f" There, too, {len(trials) - 1} other shapes of trees were tried beside the default: {outcome}."


def _served(content: Mapping[str, Any], backtest: Mapping[str, Any], targets: Sequence[str]) -> str:
    lines = ["## What serves", ""]
    for target in targets_of(targets):
        cap = content["serving"][target]["cap"]
        lines.append(
            f"- **{target}**: {backtest['verdicts'][target]} Predictions are capped at {cap:,.0f} "
            f"({content['serving'][target]['cap_multiple']:g} × the largest 30-day spend seen)."
        )
    low, high = content["segments"]["thresholds"]
    first, second = content["segments"]["quantiles"]
    lines.append(
        f"- **Segments**: {SEGMENTS[0]} up to {low:,.2f}, {SEGMENTS[2]} above {high:,.2f} of predicted total "
        f"(the {first:.0%} and {second:.0%} quantiles of the judged predictions)."
    )
    return "\n".join([*lines, *_never_bought(content["never_bought"])])


def _never_bought(prior: Mapping[str, Any]) -> list[str]:
    """What customers are answered with of whom no purchase is known, by how long ago they registered."""
    if not prior["observations"]:
        upper = prior["ages"]["unknown"]["upper"][TOTAL_TARGET]
        return [
            "- **Known customers who never bought** are answered with 0: there was no past observation of such a customer "
            "(it takes a customer_since before an as_of that was learned from), so this is no estimate. The upper end of "
            f"their interval, {upper:,.2f}, is what one in ten customers exceeds in the 30 days from the first purchase on."
        ]
    rows = [
        [
            plain(name),
            f"{age['observations']:,}",
            f"{age['spend'][TOTAL_TARGET]:,.2f}",
            f"{age['upper'][TOTAL_TARGET]:,.2f}",
            f"{age['probability']:.3f}",
        ]
        for name, age in prior["ages"].items()
    ]
    return [
        f"- **Known customers who never bought** get what {prior['observations']:,} past observations of such customers "
        "spent, by how long before `as_of` they registered, each age drawn towards all of them as far as chance may have "
        "parted them; where the registration is unknown, that of all:",
        "",
        render_table(["registered", "past observations", "total", "upper end", "purchase probability"], rows),
    ]


def _leaks(backtest: Mapping[str, Any]) -> str:
    return f"## Leak checks\n\n{backtest['leaks']['summary']}"


def _target_table(target: str, backtest: Mapping[str, Any], population: str) -> str:
    contest = backtest["targets"][target]
    counts = ", ".join(f"{n:,}" for n in backtest["populations"][population].values())
    header, rows = ["", *METRIC_TITLES.values()], candidate_rows(contest, population)
    if population == "all":
        header, rows = _with_selection_scores(header, rows, contest)
    lines = [f"## {target}: {POPULATION_TITLES[population]} ({counts} rows)", "", render_table(header, rows), ""]
    if population == "all":
        lines += _spread(contest)
        lines += [
            f"- {plain(candidate['name'])} was left out: {candidate['left_out']}"
            for candidate in contest["candidates"]
            if candidate["left_out"]
        ]
    return "\n".join(lines).rstrip()


def _with_selection_scores(
    header: list[str], rows: list[list[str]], contest: Mapping[str, Any]
) -> tuple[list[str], list[list[str]]]:
    """One more column: the score on the selection windows, which alone decided."""
    scores = [each["selection_score"] for each in contest["candidates"] if each["metrics"] is not None]
    cells = [*(render_number(score) for score in scores), ""]
    return [*header, "score that chose"], [[*row, cell] for row, cell in zip(rows, cells, strict=True)]


def _spread(contest: Mapping[str, Any]) -> list[str]:
    """What serves and the best rule window by window, and by how much chance alone moves the means."""
    noise, rule = contest["noise"], _best_rule(contest)
    rows = []
    sides = (("served", contest["reconciled"]["all"]), (RULE_BY_NAME[rule["name"]].title, rule["metrics"]["all"]))
    for title, means in sides:
        for day, metrics in means.get("windows", {}).items():
            rows.append([f"{title}, {day}", *(render_number(metrics[metric]) for metric in noise)])
    rows.append(["served minus the best rule", *(render_number(_lead(contest, metric)) for metric in noise)])
    for title, name in (("bootstrap SD of served", "own"), ("bootstrap SD of the difference", "lead")):
        rows.append([title, *(render_number(noise[metric][name]) for metric in noise)])
    return ["Window by window:", "", render_table(["", *(METRIC_TITLES[metric] for metric in noise)], rows), ""]


def _exceeding(backtest: Mapping[str, Any], targets: Sequence[str]) -> str:
    """How often the parts say more than the whole."""
    header = ["", *POPULATION_TITLES.values()]
    titles = {
        "best_rules": "the best simple rule of each target",
        "before_scaling": "what serves each target, before it agrees",
        "served": "served",
    }
    shares = backtest["categories_exceed_total"]
    rows = [
        [title, *(render_share(shares[population][name]) for population in POPULATION_TITLES)]
        for name, title in titles.items()
    ]
    text = render_table(header, rows) if targets else "There are no named categories."
    return f"## Customers whose named categories exceed the total\n\n{text}"


_PROBABILITIES = {
    "rate": "share of buyers for everyone",
    "heuristic": "documented rule of thumb",
    "uncalibrated": "classifier, as it is",
    "calibrated": "classifier, calibrated",
    "served": "served",
}


def _probability(backtest: Mapping[str, Any]) -> str:
    measured = backtest["probability"]
    header = ["", "AUC", "log loss", "Brier", "mean"]
    sections = [
        "## Purchase probability",
        "Calibrated on the windows before (beta calibration, Kull et al. 2017; its level only as far as windows agree on it), "
        "measured on the report windows, all customers of all windows together.",
        _bought(measured, "all"),
        render_table(header, [*_probability_rows(measured), *_probability_windows(measured)]),
    ]
    if measured["served"].get("name") != "rate":
        sections[-1] += f"\n\n{_worth(measured)}"
    active = measured.get("active_90d")
    if active:
        sections += [_bought(active, "active_90d"), render_table(header, _probability_rows(active))]
    tenths = [
        [str(number), f"{tenth['customers']:,}", f"{tenth['predicted']:.3f}", f"{tenth['bought']:.3f}"]
        for number, tenth in enumerate(measured["reliability"], start=1)
    ]
    sections += [
        "Reliability of the served probability, by tenth:",
        *images(backtest, "reliability", "Share that bought against mean predicted probability, by tenth"),
        render_table(["tenth", "customers", "mean predicted", "share that bought"], tenths),
    ]
    return "\n\n".join(sections)


def _worth(measured: Mapping[str, Any]) -> str:
    """Whether what serves beats what anyone could say without a model, on the same rows."""
    better = {name: measured["served"]["brier"] < measured[name]["brier"] for name in ("rate", "heuristic")}
    if all(better.values()):
        return "By Brier score what serves is better than both the share of buyers and the rule of thumb."
    lost = " and ".join(f"the {_PROBABILITIES[name]}" for name, won in better.items() if not won)
    return f"By Brier score what serves is **not** better than {lost}."


def _bought(measured: Mapping[str, Any], population: str) -> str:
    return f"Of {POPULATION_TITLES[population]} {measured['served']['share_buying']:.1%} bought in the window:"


def _probability_rows(measured: Mapping[str, Any]) -> list[list[str]]:
    return [[title, *_buying(measured[key])] for key, title in _PROBABILITIES.items() if key in measured]


def _probability_windows(measured: Mapping[str, Any]) -> list[list[str]]:
    return [[f"served, {day}", *_buying(metrics)] for day, metrics in measured["windows"].items()]


def _buying(metrics: Mapping[str, Any]) -> list[str]:
    return [render_number(metrics.get(name)) for name in ("auc", "log_loss", "brier", "mean_probability")]


def render_ceiling(ceiling: Mapping[str, Any]) -> str:
    """What serves beside the best that anyone could predict, for tables whose truth is known."""
    shown = ("capped_r2", "d2", "normalised_gini", "decile_mape", "bias")
    titles = {
        "served": "what serves",
        "ceiling": "the best possible given the visible history",
        "oracle": "the expectation given the hidden truth",
    }
    rows = [[title, *(render_number(ceiling[key][name]) for name in shown)] for key, title in titles.items()]
    served, best = (ceiling[key]["capped_r2"] for key in ("served", "ceiling"))
    reached = f" What serves reaches {served / best:.1%} of the ceiling's capped R²." if served and best else ""
    return (
        "The truth that these tables were drawn from is known, so the best prediction that any model could make is too "
        f"(total, {', '.join(ceiling['days'])}).{reached}\n\n"
        f"{render_table(['', *(METRIC_TITLES[name] for name in shown)], rows)}"
    )


def beside_card(timings: Mapping[str, Mapping[str, float]] | None, ceiling: Mapping[str, Any] | None) -> str:
    """What is no part of the sealed card, since it differs from run to run or needs the truth of the sample shop."""
    sections = []
    if ceiling:
        sections.append(f"## The ceiling of the sample shop\n\n{render_ceiling(ceiling)}")
    if timings:
        names = list(dict.fromkeys(name for models in timings.values() for name in models))
        rows = [
            [plain(name), *(f"{models[name]:.1f}" if name in models else "" for models in timings.values())]
            for name in names
        ]
        sections.append(
            "## Run time\n\nSeconds for all fits and predictions of the backtest.\n\n"
            + render_table(["", *timings], rows)
        )
    return "".join(f"\n{section}\n" for section in sections)
