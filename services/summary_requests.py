"""What a caller says of a customer in a few numbers, read and checked: only what cannot be is refused."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.errors import InvalidRequest
from services.ignored_inputs import ignored_inputs
from services.requested_ids import is_blank, json_type, read_optional_label
from services.summary_consistency import Given, refuse_impossible, settle
from services.summary_fields import (
    EIGHTEEN_FIELDS,
    LONGEST_SHOWN,
    SEVEN_FIELDS,
    SIX_FEATURES,
    UNUSED_FIELDS,
    SummaryField,
    read_value,
)

FIELDS = (*SEVEN_FIELDS, *EIGHTEEN_FIELDS)
SUMMARY_FIELDS: tuple[str, ...] = tuple(one.name for one in FIELDS)
"""Any of these in a request, unless it says nothing, means that the caller describes a customer instead of naming one."""
UNKNOWN_FIELD = "A summary has no field of this name."


@dataclass(frozen=True)
class SummaryRequest:
    """What is known of a customer.

    inputs: by the names of `summary_columns.SUMMARY_INPUTS`, absent = not known; of one who never bought `transactions` is 0
    and nothing else but `days_since_first` is there. warnings: what did not fit together, and what was used.
    ignored: `{field, reason}` of each field that no prediction uses.
    """

    customer_id: str | None
    inputs: dict[str, float | str]
    warnings: list[str] = field(default_factory=list)
    ignored: list[dict[str, str]] = field(default_factory=list)

    @property
    def never_bought(self) -> bool:
        """Whether the customer is said to have no order yet."""
        return self.inputs.get("transactions") == 0


def told_fields(request: Mapping[str, Any]) -> list[str]:
    """The fields of a summary that say something in a request."""
    return [name for name in SUMMARY_FIELDS if not is_blank(request.get(name))]


def is_summary(request: Mapping[str, Any]) -> bool:
    """Whether a request describes a customer by a summary; one whose fields all say nothing does where it names nobody either."""
    names_nobody = is_blank(request.get("customer_id")) and any(name in request for name in SUMMARY_FIELDS)
    return bool(told_fields(request)) or names_nobody


def read_summary(request: Mapping[str, Any]) -> SummaryRequest:
    """The summary of a request. Raises InvalidRequest for what cannot be, with the value, the rule and the way out."""
    customer_id = read_optional_label(request.get("customer_id"))
    told = {one: read_value(one, request[one.name]) for one in FIELDS if one.name in request}
    if all(value is None for value in told.values()):
        raise InvalidRequest(
            f"{', '.join(one.name for one in told)}: nothing of it is known (null). Send a number in at least one of "
            f"{', '.join(SUMMARY_FIELDS)}."
        )
    return _described(customer_id, told, _unused(request))


def read_six_features(features: Any) -> SummaryRequest:
    """The summary of `total_spend, avg_spend, num_transactions, total_units, unique_products, recency_days`.

    features: a list of the six in this order, or an object by these names. Raises InvalidRequest.
    """
    told = {one: _required(one, value) for one, value in zip(SIX_FEATURES, _six_values(features), strict=True)}
    return _described(None, told, [])


def _described(
    customer_id: str | None, told: Mapping[SummaryField, float | str | None], unused: list[dict[str, str]]
) -> SummaryRequest:
    known = _known(told)
    refuse_impossible(known)
    settled = settle(known)
    texts = {one.input: value for one, value in told.items() if isinstance(value, str)}
    if texts and "transactions" in known and not known["transactions"].value:
        settled.ignored |= dict.fromkeys(texts, "Nothing was bought yet, so there is no favourite.")
        texts = {}
    ignored = [{"field": name, "reason": reason} for name, reason in settled.ignored.items()]
    return SummaryRequest(customer_id, {**settled.inputs, **texts}, settled.warnings, [*ignored, *unused])


def _known(told: Mapping[SummaryField, float | str | None]) -> dict[str, Given]:
    """The numbers, by input, each under the last of its names. Raises InvalidRequest where two names say different things."""
    known: dict[str, Given] = {}
    for one, value in told.items():
        if isinstance(value, float):
            given = Given(one.name, value)
            before = known.get(one.input, given)
            if before.value != value:
                raise InvalidRequest(
                    f"{before.said} and {given.said}: both are the {one.meaning}. Send the one that is right."
                )
            known[one.input] = given
    return known


def _unused(request: Mapping[str, Any]) -> list[dict[str, str]]:
    names = [
        name
        for name, value in request.items()
        if not is_blank(value) and name not in SUMMARY_FIELDS and name != "customer_id"
    ]
    return ignored_inputs(names, lambda name: UNUSED_FIELDS.get(name, UNKNOWN_FIELD))


def _six_values(features: Any) -> Sequence[Any]:
    names = [one.name for one in SIX_FEATURES]
    wanted = f"features takes the six of {', '.join(names)}, as a list in this order or as an object by these names"
    if isinstance(features, Mapping):
        missing = [name for name in names if name not in features]
        unknown = [str(name)[:LONGEST_SHOWN] for name in features if name not in names]
        if missing or unknown:
            raise InvalidRequest(f"features {_lacks(missing, unknown)}; {wanted}.")
        return [features[name] for name in names]
    if not isinstance(features, (list, tuple)):
        shown = "missing" if features is None else _json_type(features)
        raise InvalidRequest(f"features is {shown}; {wanted}.")
    if len(features) != len(names):
        raise InvalidRequest(f"features has {len(features):,} entries; {wanted}.")
    return features


def _lacks(missing: Iterable[str], unknown: Sequence[str]) -> str:
    lacks = f"lacks {', '.join(missing)}" if missing else ""
    has = f"has {', '.join(unknown[:6])}, which {'is' if len(unknown) == 1 else 'are'} none" if unknown else ""
    return " and ".join(part for part in (lacks, has) if part)


def _json_type(value: Any) -> str:
    if isinstance(value, str):
        return "a text"
    return "a number" if isinstance(value, (int, float)) and not isinstance(value, bool) else json_type(value)


def _required(one: SummaryField, value: Any) -> float | str:
    told = read_value(one, value)
    if told is None:
        raise InvalidRequest(
            f"{one.name} is {'null' if value is None else 'blank'}; all six features must be numbers. Send the "
            f"{one.meaning}, or what you know to POST /predict, where any of them may be missing."
        )
    return told
