"""Insights by rules: the same facts always say the same, in numbers that are among them, and claim no cause."""

from collections.abc import Callable, Mapping

from ml_pipeline.customer_flags import AT_RISK, CATEGORY_LOYAL, CROSS_SELL
from ml_pipeline.schema import HORIZON_DAYS, OTHER_TARGET
from ml_pipeline.snapshot import SEGMENTS
from ml_pipeline.wording import counted, days, days_ago, number, plain
from services import archetypes
from services.archetypes import HIGH, OFTEN
from services.insight_check import Wording
from services.insight_facts import CustomerFacts, GroupFacts

HIGH_VALUE = SEGMENTS[-1]
MANY_AT_RISK, MANY_TO_OFFER, MANY_LOYAL = 0.2, 0.2, 0.3
"""Of a group's customers: from this share on it is the first thing to do."""
TOP_HEAVY = 0.5
"""Of a group's predicted money in the hands of fewer customers than that share of them."""
ASLEEP = 0.1
"""Below this mean probability of buying hardly anybody of a group is expected."""


# ---- one customer


def customer_wording(facts: CustomerFacts) -> Wording:
    """What is said of a customer, and what is to be done; by the kind of customer."""
    insight, action = OF_ARCHETYPE[facts.archetype](facts)
    return Wording(f"{insight} {_predicted(facts)}", action)


def _high_value_active(facts: CustomerFacts) -> tuple[str, str]:
    return (
        f"Among the best, and active: {_history(facts)}, more than {HIGH} % of the shop's customers; {_last(facts)}.",
        "Look after this customer in person: early access to what is new and a loyalty benefit rather than a discount.",
    )


def _at_risk(facts: CustomerFacts) -> tuple[str, str]:
    return (
        f"A valuable customer who stays away: {_history(facts)}, but {_last(facts)}{_rhythm(facts)}.",
        "Win back now: a personal message with an offer from what was bought before, limited in time, and the question "
        "whether anything was wrong.",
    )


def _new(facts: CustomerFacts) -> tuple[str, str]:
    return (
        f"A new customer: {_history(facts)}, {_last(facts)}; too few purchases to know a habit.",
        f"Welcome, and lead to the next purchase within {days(HORIZON_DAYS)}: a thank-you with products that go with what "
        "was bought.",
    )


def _habitual(facts: CustomerFacts) -> tuple[str, str]:
    average = facts.money(facts.customer.average_spend)
    return (
        f"A customer of habit, often and little: {_history(facts)}, {average} each on average, more often than {OFTEN} % "
        f"of the shop's customers; {_last(facts)}.",
        f"Make the basket larger rather than more frequent: bundles, refill packs, or a benefit above {average}.",
    )


def _low_value_inactive(facts: CustomerFacts) -> tuple[str, str]:
    return (
        f"Little bought and long away: {_history(facts)}, {_last(facts)}; such customers count as away after "
        f"{days(facts.away_after)}.",
        "Keep the cost low: the general newsletter or a seasonal mailing, no personal offer and no discount budget.",
    )


def _no_purchase_yet(_facts: CustomerFacts) -> tuple[str, str]:
    return (
        "No purchase yet: what is predicted is what such customers spent in the past.",
        "Invite to buy by the general newsletter, with what most customers begin with; no personal offer yet.",
    )


def _steady(facts: CustomerFacts) -> tuple[str, str]:
    products = counted(facts.customer.products, "product")
    return (
        f"A steady customer: {_history(facts)}, {_last(facts)}{_rhythm(facts)}.",
        f"Keep in the regular mailings, and suggest something beside the {products} bought so far.",
    )


OF_ARCHETYPE: Mapping[str, Callable[[CustomerFacts], tuple[str, str]]] = {
    archetypes.HIGH_VALUE_ACTIVE: _high_value_active,
    archetypes.AT_RISK: _at_risk,
    archetypes.NEW: _new,
    archetypes.HABITUAL: _habitual,
    archetypes.LOW_VALUE_INACTIVE: _low_value_inactive,
    archetypes.NO_PURCHASE_YET: _no_purchase_yet,
    archetypes.STEADY: _steady,
}


def _history(facts: CustomerFacts) -> str:
    return f"{facts.money(facts.customer.total_spend)} in {counted(facts.customer.transactions, 'purchase')}"


def _last(facts: CustomerFacts) -> str:
    return f"last bought {days_ago(facts.customer.days_since_last)}"


def _rhythm(facts: CustomerFacts) -> str:
    """Beside how others buy, where that is known."""
    if facts.usual_gap is None:
        return ""
    every = "day" if facts.usual_gap == 1 else days(facts.usual_gap)
    return f", where customers with about as many usually buy every {every}"


def _predicted(facts: CustomerFacts) -> str:
    said = (
        f"Predicted for the next {days(HORIZON_DAYS)}: {facts.money(facts.predicted)} "
        f"({facts.money(facts.lower)} to {facts.money(facts.upper)}), {facts.segment}; the chance of a purchase is "
        f"{percent(facts.probability)}."
    )
    caution = " The figures lie outside of what was trained on: take the prediction as rough."
    return said + caution if facts.extrapolated else said


# ---- a group


def group_wording(facts: GroupFacts) -> Wording:
    """What is said of a group of customers, and the first thing to do about it."""
    parts = (_together(facts), _best(facts), _largest_category(facts), _who_is_leaving(facts))
    return Wording(" ".join(part for part in parts if part), _first_thing_to_do(facts))


def _together(facts: GroupFacts) -> str:
    return (
        f"{customers(facts.customers)} {'is' if facts.customers == 1 else 'are'} predicted to spend "
        f"{facts.money(facts.predicted)} ({facts.money(facts.lower)} to {facts.money(facts.upper)}) in the "
        f"{days(HORIZON_DAYS)} from {facts.as_of} on; {_buyers(facts)}."
    )


def _buyers(facts: GroupFacts) -> str:
    likely = percent(facts.mean_probability)
    if facts.customers == 1:
        return f"the chance of a purchase is {likely}"
    return f"about {_about(facts.buyers)} of them ({likely}) will buy at all"


def _about(count: float) -> str:
    """`1,240`, `3.5`, `0.04`."""
    return number(count) if count >= 0.95 else f"{count:.2f}".rstrip("0").rstrip(".")


def _best(facts: GroupFacts) -> str:
    best = facts.segments[HIGH_VALUE]
    if not 0 < best.customers < facts.customers:
        return ""
    return f"{customers(best.customers)} of the segment {HIGH_VALUE} stand for {facts.money(best.spend)} of it."


def _largest_category(facts: GroupFacts) -> str:
    named = {name: spend for name, spend in facts.targets.items() if name != OTHER_TARGET and spend}
    if not named:
        return ""
    largest = max(named, key=lambda name: named[name])
    return f"Of the categories {plain(largest)} is the largest with {facts.money(named[largest])}."


def _who_is_leaving(facts: GroupFacts) -> str:
    leaving = facts.flags[AT_RISK].customers
    return f"{customers(leaving)} {'is' if leaving == 1 else 'are'} at risk of staying away." if leaving else ""


def _first_thing_to_do(facts: GroupFacts) -> str:
    """The first of these that fits; the last always does."""
    leaving, offered = facts.flags[AT_RISK].customers, facts.flags[CROSS_SELL].customers
    best, loyal = facts.segments[HIGH_VALUE], facts.flags[CATEGORY_LOYAL].customers
    if leaving >= MANY_AT_RISK * facts.customers:
        return (
            f"Begin with winning back: a personal message to {customers(leaving)} with the flag at_risk, those with the highest "
            "predicted spend before the others."
        )
    if facts.mean_probability < ASLEEP:
        return "Keep the cost low: try a reactivation mailing on a part of them, and go on only if that part buys more."
    if 0 < best.customers < TOP_HEAVY * facts.customers and best.spend >= TOP_HEAVY * facts.predicted:
        return (
            f"Look after {customers(best.customers)} of the segment {HIGH_VALUE} in person, with early access and loyalty "
            "benefits; reach the others by the regular mailings."
        )
    if facts.offer is not None and offered >= MANY_TO_OFFER * facts.customers:
        return (
            f"Make offers across categories to {customers(offered)} with the flag cross_sell, who are likely to buy but "
            f"leave a category out; {plain(facts.offer)} suits most of them."
        )
    if facts.loyal_to is not None and loyal >= MANY_LOYAL * facts.customers:
        return (
            f"Make offers by category: {customers(loyal)} with the flag category_loyal keep to their favourite, "
            f"most often {plain(facts.loyal_to)}."
        )
    return "Keep to the regular mailings, and compare what comes with the interval before anything is changed."


def customers(count: int) -> str:
    """`1 customer`, `1,240 customers`."""
    return f"{count:,} customer{'' if count == 1 else 's'}"


def percent(probability: float) -> str:
    """`83 %`, `4.2 %`; near nothing and near everything with hundredths, never rounded to either."""
    value = 100 * probability
    places = 2 if value < 1 or value > 99 else 1 if value < 10 else 0
    text = f"{value:.{places}f}"
    return f"{text.rstrip('0').rstrip('.') if places else text} %"
