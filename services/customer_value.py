"""What a customer is worth whom six numbers describe: predicted spend, chance of a purchase, segment, insight and action."""

from collections.abc import Iterator, Mapping
from typing import Any

from ml_pipeline.schema import HORIZON_DAYS
from services.archetypes import UNUSUAL, Described, Population, population_of
from services.errors import InvalidRequest, ServiceError
from services.ignored_inputs import ignored_inputs
from services.insight_facts import CustomerFacts
from services.insights import Insights
from services.model_registry import Model, ModelRegistry
from services.requested_ids import read_label
from services.summary_answers import described_answers
from services.summary_requests import SummaryRequest, read_six_features

USED_FIELDS = ("customer_id", "features")
EXAMPLE = (
    'Send {"customer_id": "13085", "features": [345.7, 49.3, 7, 12, 5, 4]}: total_spend, avg_spend, num_transactions, '
    "total_units, unique_products, recency_days, as a list in this order or as an object by these names"
)


class CustomerValues:
    """Answers from six numbers; the customer need not be known."""

    def __init__(self, registry: ModelRegistry, insights: Insights) -> None:
        self._registry = registry
        self._insights = insights
        self._population: tuple[str, Population] | None = None

    def predict(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one request, by the names that the API documents.

        Raises InvalidRequest, and what the registry raises.
        """
        customer_id = _customer_id(request)
        described = read_six_features(_features(request))
        model = self._registry.serving()
        predicted = _predicted(model, described)
        facts = self._facts(model, described, predicted)
        return {
            "customer_id": customer_id,
            "predicted_future_spend_30d": facts.predicted,
            "purchase_probability_30d": facts.probability,
            "customer_segment": facts.segment,
            **self._insights.of_customer(facts).as_json(),
            "archetype": facts.archetype,
            "interval": {"lower": facts.lower, "upper": facts.upper},
            "currency": facts.currency,
            "horizon_days": HORIZON_DAYS,
            "model_version": model.version,
            "model_used": predicted["model_used"],
            "extrapolated": facts.extrapolated,
            "warnings": [*described.warnings, *_scale_warnings(facts, self._of(model))],
            **_ignored(request, described),
        }

    def _facts(self, model: Model, described: SummaryRequest, predicted: Mapping[str, Any]) -> CustomerFacts:
        customer, population = Described.from_inputs(described.inputs), self._of(model)
        return CustomerFacts(
            archetype=population.archetype(customer),
            segment=predicted["segment"],
            customer=customer,
            predicted=predicted["predicted_30d_spend"]["total"],
            **predicted["intervals"]["total"],
            probability=purchase_probability(customer.days_since_last, customer.transactions),
            usual_gap=population.usual_gap(customer.transactions),
            away_after=population.away_after(customer.transactions),
            spent_more=customer.total_spend > population.high_spend,
            bought_more=customer.transactions > population.often,
            extrapolated=predicted["extrapolated"],
            currency=predicted["currency"],
        )

    def _of(self, model: Model) -> Population:
        """What is usual in the served shop, looked at once per snapshot."""
        snapshot_id, known = model.snapshot.snapshot_id, self._population
        if known is None or known[0] != snapshot_id:
            known = snapshot_id, population_of(model.snapshot, model.bundle.features)
            self._population = known
        return known[1]


def purchase_probability(days_since_last: float, transactions: float) -> float:
    """The documented rule of thumb, two decimals."""
    from ml_pipeline.rules import purchase_heuristic

    return round(float(purchase_heuristic(days_since_last, transactions)), 2)


def _predicted(model: Model, described: SummaryRequest) -> Mapping[str, Any]:
    """What `POST /predict` answers to the same six numbers."""
    (predicted,) = described_answers(model, [described])
    if isinstance(predicted, ServiceError):
        raise predicted
    return predicted


def _scale_warnings(facts: CustomerFacts, population: Population) -> Iterator[str]:
    """Of money at another scale than the shop's: most often it is in another currency."""
    average, most = facts.customer.average_spend, 100 - UNUSUAL
    if not facts.customer.transactions:
        return
    if average < population.least_value:
        beside = f"less than {most} % of the shop's customers spend per purchase ({facts.money(population.least_value)} and more)"
    elif average > population.most_value:
        beside = f"more than {most} % of the shop's customers spend per purchase (up to {facts.money(population.most_value)})"
    else:  # usual, or nobody to compare with
        return
    yield (
        f"{facts.money(average)} per purchase are {beside}. Check that the money is in {facts.currency}: what is predicted is "
        "learned from customers who spend at the shop's scale."
    )


def _customer_id(request: Mapping[str, Any]) -> str:
    if request.get("customer_id") is None:
        raise InvalidRequest(f"customer_id is missing. {EXAMPLE}.")
    return read_label(request["customer_id"])


def _features(request: Mapping[str, Any]) -> Any:
    if request.get("features") is None:
        raise InvalidRequest(f"features is missing. {EXAMPLE}.")
    return request["features"]


def _ignored(request: Mapping[str, Any], described: SummaryRequest) -> dict[str, Any]:
    beside = [name for name in request if name not in USED_FIELDS]
    ignored = [
        *described.ignored,
        *ignored_inputs(beside, lambda _name: "Only the six features are used."),
    ]
    return {"ignored_inputs": ignored} if ignored else {}
