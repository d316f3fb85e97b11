"""How a served number is made of members, rules and past errors: small trees, the same in backtest and in serving.

A formula is evaluated over what the members say for n customers. It is plain JSON in a bundle's metadata, so what serves
can be read there:

- rule: a simple rule over the history (`rules`).
- member: a money model's own number, corrected by level or as it is.
- hurdle: probability of buying, calibrated or as it is, times the geometric mean of amounts given a purchase, these
  corrected by level or as they are.
- share: the customer's usual share of a target, pulled to the shop's, times the total that is served.
- blend: the geometric or arithmetic mean of other formulas.

`attribute` says of the same trees why they come to their number, by the algebra of `attribution`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.attribution import (
    Attributed,
    Contributions,
    arithmetic,
    carried,
    geometric,
    of_contributions,
    of_logit,
    product,
    split,
)
from ml_pipeline.calibration import AS_IT_IS, LevelCalibration, ProbabilityCalibration
from ml_pipeline.errors import BundleMismatch
from ml_pipeline.features import decayed_rate_name
from ml_pipeline.members import Matrix
from ml_pipeline.rules import RULE_BY_NAME, spend_history
from ml_pipeline.schema import OTHER_TARGET, TOTAL_TARGET

FloatArray = npt.NDArray[np.float64]
Formula = Mapping[str, Any]

SHARE_DAYS = 120
SHARE_PULL = 0.5  # of a mean customer's spend counts as bought in the shop's usual mix


@dataclass(frozen=True)
class Known:
    """What a formula may look at, for n customers: their features (n, F), each member's own number (n,), and the total
    that is served (n,), once it is known."""

    features: Matrix
    names: Sequence[str]
    targets: Sequence[str]
    own: Mapping[str, FloatArray]
    total: FloatArray | None = None


def rule_formula(name: str, mean: float) -> Formula:
    """A simple rule; `mean` is the target's mean over the rows learned from."""
    return {"kind": "rule", "name": name, "mean": mean}


def member_formula(name: str, levels: LevelCalibration | None = None) -> Formula:
    """A member's own number, corrected by level or as it is."""
    return {"kind": "member", "name": name, "levels": levels.as_json() if levels else None}


def hurdle_formula(
    purchase: str, amounts: Sequence[tuple[str, LevelCalibration | None]], calibration: ProbabilityCalibration | None
) -> Formula:
    """Probability × amount; each amount is a member's name and its correction by level."""
    return {
        "kind": "hurdle",
        "purchase": purchase,
        "calibration": calibration.as_json() if calibration else None,
        "amounts": [{"name": name, "levels": levels.as_json() if levels else None} for name, levels in amounts],
    }


def share_formula(mean: float, shop_share: float) -> Formula:
    """The customer's usual share of the served total; mean: of the total over the rows learned from."""
    return {"kind": "share", "pull": SHARE_PULL * mean, "shop_share": shop_share}


def blend_formula(mean: str, parts: Sequence[Formula]) -> Formula:
    """The `geometric` or `arithmetic` mean of formulas."""
    return {"kind": "blend", "mean": mean, "parts": list(parts)}


def members_of(formula: Formula) -> tuple[str, ...]:
    """The names of all members that a formula needs, each once."""
    match formula["kind"]:
        case "member":
            found = [formula["name"]]
        case "hurdle":
            found = [formula["purchase"], *(amount["name"] for amount in formula["amounts"])]
        case "blend":
            found = [name for part in formula["parts"] for name in members_of(part)]
        case _:
            found = []
    return tuple(dict.fromkeys(found))


def evaluate(formula: Formula, known: Known, target: str) -> FloatArray:
    """Predicted money (n,) of `target`, ≥ 0. Raises BundleMismatch for a kind that this code does not know."""
    match formula["kind"]:
        case "rule":
            history = spend_history(known.features, known.names, known.targets, target)
            predicted = RULE_BY_NAME[formula["name"]].predict(history, formula["mean"])
        case "member":
            predicted = _corrected(known.own[formula["name"]], formula["levels"])
        case "hurdle":
            predicted = _hurdle(formula, known)
        case "share":
            predicted = _share(formula, known, target)
        case "blend":
            parts = [evaluate(part, known, target) for part in formula["parts"]]
            predicted = geometric_mean(parts) if formula["mean"] == "geometric" else np.mean(parts, axis=0)
        case unknown:
            raise BundleMismatch(
                f"The bundle serves {target} by {unknown!r}, which this code does not know: train again."
            )
    return np.maximum(predicted, 0.0)


def calibrated_probability(raw: FloatArray, calibration: Mapping[str, float] | None) -> FloatArray:
    """Probability of buying (n,) from the classifier's own number."""
    return (ProbabilityCalibration.from_json(calibration) if calibration else AS_IT_IS).apply(raw)


def geometric_mean(parts: Sequence[FloatArray]) -> FloatArray:
    """Of numbers ≥ 0, (n,) each; 0 where one of them is 0. One part alone stays bit for bit."""
    if len(parts) == 1:
        return parts[0]
    product = parts[0].copy()
    for part in parts[1:]:
        product = product * part
    return np.power(product, 1 / len(parts))


def personal_share(known: Known, target: str, pull: float, shop_share: float) -> FloatArray:
    """(rate of the target + pull × shop's share) / (rate of all + pull), from exponentially weighted rates; in [0, 1]."""
    position = {name: index for index, name in enumerate(known.names)}

    def rate(each: str | None) -> FloatArray:
        column = known.features[:, position[decayed_rate_name(SHARE_DAYS, each)]]
        return np.maximum(np.nan_to_num(column.astype(np.float64), nan=0.0), 0.0)

    total = rate(None)
    if target == OTHER_TARGET:
        own = np.maximum(total - sum((rate(each) for each in known.targets), start=np.zeros(len(total))), 0.0)
    else:
        own = np.minimum(rate(target), total)
    weight = total + pull
    return np.where(weight > 0, (own + pull * shop_share) / np.where(weight > 0, weight, 1.0), shop_share)


def _corrected(own: FloatArray, levels: Mapping[str, Sequence[float]] | None) -> FloatArray:
    money = np.maximum(own, 0.0)
    return LevelCalibration.from_json(levels).apply(money) if levels else money


def _hurdle(formula: Formula, known: Known) -> FloatArray:
    amounts = [_corrected(known.own[amount["name"]], amount["levels"]) for amount in formula["amounts"]]
    return calibrated_probability(known.own[formula["purchase"]], formula["calibration"]) * geometric_mean(amounts)


def _share(formula: Formula, known: Known, target: str) -> FloatArray:
    if known.total is None:
        raise ValueError(f"The share of {target} was asked for before the total was known.")
    return personal_share(known, target, formula["pull"], formula["shop_share"]) * known.total


@dataclass(frozen=True)
class Reasons:
    """What the reasons of n customers are made from: their features (n, F), what each member's number is made of, and
    the reasons of the total that is served, once they are known."""

    features: Matrix
    names: Sequence[str]
    targets: Sequence[str]
    own: Mapping[str, Contributions]
    total: Attributed | None = None

    def columns(self, names: Sequence[str]) -> FloatArray:
        """Values (n, len(names)) of some features; missing ones count as 0."""
        positions = [list(self.names).index(name) for name in names]
        return np.nan_to_num(self.features[:, positions].astype(np.float64), nan=0.0)

    def weights(self, of_names: Mapping[str, FloatArray | float]) -> FloatArray:
        """Weights (n, F) with these columns filled."""
        found = np.zeros(self.features.shape)
        for name, weight in of_names.items():
            found[:, list(self.names).index(name)] += weight
        return found


def attribute(formula: Formula, reasons: Reasons, target: str) -> Attributed:
    """Predicted money of `target` as `evaluate` has it, and why."""
    match formula["kind"]:
        case "rule":
            return _attributed_rule(formula, reasons, target)
        case "member":
            return _attributed_member(formula, reasons)
        case "hurdle":
            amounts = geometric([_attributed_member(amount, reasons) for amount in formula["amounts"]])
            return product([_attributed_probability(formula, reasons), amounts])
        case "share":
            if reasons.total is None:
                raise ValueError(f"The share of {target} was asked for before the total was known.")
            return product([_attributed_share(formula, reasons, target), reasons.total])
        case "blend":
            parts = [attribute(part, reasons, target) for part in formula["parts"]]
            return geometric(parts) if formula["mean"] == "geometric" else arithmetic(parts)
        case unknown:
            raise BundleMismatch(
                f"The bundle serves {target} by {unknown!r}, which this code does not know: train again."
            )


def _attributed_member(formula: Formula, reasons: Reasons) -> Attributed:
    money, levels = of_contributions(reasons.own[formula["name"]]), formula["levels"]
    return carried(money, LevelCalibration.from_json(levels).apply) if levels else money


def _attributed_probability(formula: Formula, reasons: Reasons) -> Attributed:
    def probability_of(logit: FloatArray) -> FloatArray:
        return calibrated_probability(1 / (1 + np.exp(-logit)), formula["calibration"])

    return of_logit(reasons.own[formula["purchase"]], probability_of)


def _attributed_rule(formula: Formula, reasons: Reasons, target: str) -> Attributed:
    """Against the training rows' mean (or 0 of the rule that is always 0), by the columns that the rule looks at."""
    rule = RULE_BY_NAME[formula["name"]]
    value = rule.predict(spend_history(reasons.features, reasons.names, reasons.targets, target), formula["mean"])
    if rule.money_column is None:
        return split(value, float(value[0]) if len(value) else 0.0, np.zeros(reasons.features.shape))
    weights = _weights_of_money(rule.money_column, reasons, target)
    if rule.days_column:
        weights = (weights + reasons.weights({rule.days_column: 1.0})) / 2
    return split(value, formula["mean"], weights)


def _attributed_share(formula: Formula, reasons: Reasons, target: str) -> Attributed:
    """Against the shop's usual share: half by the customer's rate of the target, half by his rate of everything."""
    known = Known(reasons.features, reasons.names, reasons.targets, {})
    value = personal_share(known, target, formula["pull"], formula["shop_share"])

    def column(each: str | None) -> str:
        return decayed_rate_name(SHARE_DAYS, each)

    of_target = _weights_of_money(column, reasons, target)
    if target != OTHER_TARGET:
        of_target = (of_target + reasons.weights({column(None): 1.0})) / 2
    return split(value, formula["shop_share"], of_target)


def _weights_of_money(column: Callable[[str | None], str], reasons: Reasons, target: str) -> FloatArray:
    """Which columns a target's money hangs on, (n, F), Σ = 1. What is left beside the named targets is a difference:
    half is due to the whole, half to the named ones by their size, all to the whole where they are 0."""
    if target != OTHER_TARGET:
        return reasons.weights({column(None if target == TOTAL_TARGET else target): 1.0})
    names = [column(each) for each in reasons.targets]
    named = np.abs(reasons.columns(names))
    sums = named.sum(axis=1)
    shares = np.divide(named, 2 * sums[:, None], out=np.zeros_like(named), where=sums[:, None] > 0)
    return reasons.weights({column(None): np.where(sums > 0, 0.5, 1.0), **dict(zip(names, shares.T, strict=True))})
