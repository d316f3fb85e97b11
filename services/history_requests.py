"""What a request says by a raw history, read and checked: its lines, the day it is answered for, who it is."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_pipeline.schema import DatasetConfig
from services.errors import InvalidRequest
from services.history_lines import read_day, read_lines
from services.ignored_inputs import ignored_inputs
from services.requested_ids import is_blank, read_optional_label
from services.summary_fields import UNUSED_FIELDS

if TYPE_CHECKING:
    from ml_pipeline.bundle import BundleMetadata
    from ml_pipeline.history import RawTransaction

HISTORY_FIELDS = ("customer_id", "transactions", "as_of", "customer_since")
REFUSED_SHOWN = 3
OLDEST_CUSTOMER = dt.date(1899, 12, 31)
OPTIONS = {
    "explain": "Reasons are asked for in the address: POST /predict?explain=true.",
    "model_type": "It chooses the model of a summary; a customer whose purchases are known gets the one that was best.",
    "horizon_days": "It is for summaries; a customer whose purchases are known is predicted for 30 days.",
}
"""What is not said in a body, with the reason."""


@dataclass(frozen=True)
class HistoryRequest:
    """One customer's history. as_of: features see the days before it, and it is the first day that is predicted."""

    customer_id: str | None
    lines: "list[RawTransaction]"
    as_of: dt.date
    customer_since: dt.date | None
    warnings: list[str]
    ignored: list[dict[str, str]]


def is_history(request: Mapping[str, Any]) -> bool:
    """Whether a request describes a customer by a raw history; `"transactions": null` is none."""
    return request.get("transactions") is not None


def shop_config(bundle: "BundleMetadata") -> DatasetConfig:
    """How the tables were read that the bundle learned from: a history is read in the same way.

    A bundle of an earlier version does not say its timezone and order of day and month: none is known.
    """
    content = bundle.content
    return DatasetConfig(
        currency=bundle.currency,
        timezone=content.get("timezone"),
        spend=content["spend"],
        dayfirst=content.get("dayfirst"),
        targets={name: tuple(categories) for name, categories in content["target_categories"].items()},
    )


def read_history(request: Mapping[str, Any], config: DatasetConfig, served_as_of: dt.date) -> HistoryRequest:
    """The history of a request. Raises InvalidRequest for what cannot be, and RequestTooLarge.

    as_of: where none is given, the served one, or the day after the last line if that is later; with a given one, lines
    on or after it are refused.
    """
    customer_id, given_since = read_optional_label(request.get("customer_id")), request.get("customer_since")
    found = read_lines(request["transactions"], config, served_as_of)
    as_of = _as_of(request.get("as_of"), found.lines, found.last_day, config, served_as_of)
    since = (
        None if given_since is None else read_day(given_since, "customer_since", config, served_as_of, OLDEST_CUSTOMER)
    )
    return HistoryRequest(
        customer_id=customer_id,
        lines=found.lines,
        as_of=as_of,
        customer_since=since,
        warnings=[*found.warnings, *_of_registration(found.lines, since, as_of)],
        ignored=[
            *_ignored(request),
            *found.ignored,
        ],
    )


def _as_of(
    given: Any,
    lines: "list[RawTransaction]",
    last_day: dt.date | None,
    config: DatasetConfig,
    served_as_of: dt.date,
) -> dt.date:
    if given is None:
        return max(served_as_of, last_day + dt.timedelta(days=1)) if last_day else served_as_of
    as_of = read_day(given, "as_of", config, served_as_of)
    late = [(number, line) for number, line in enumerate(lines, start=1) if line["transaction_date"] >= as_of]
    if late:
        shown = ", ".join(f"{number} ({line['transaction_date'].isoformat()})" for number, line in late[:REFUSED_SHOWN])
        more = f" and {len(late) - REFUSED_SHOWN} more" if len(late) > REFUSED_SHOWN else ""
        raise InvalidRequest(
            f"as_of is {as_of.isoformat()}, and a prediction for it may see only what was bought before; "
            f"transaction {shown}{more}: on that day or later. Leave these out, or send a later as_of or none."
        )
    return as_of


def _ignored(request: Mapping[str, Any]) -> list[dict[str, str]]:
    sent = (name for name, value in request.items() if not is_blank(value) and name not in HISTORY_FIELDS)
    return ignored_inputs(sent, _why_ignored)


def _why_ignored(name: str) -> str:
    if name in OPTIONS:
        return OPTIONS[name]
    return UNUSED_FIELDS.get(name, "A raw history's prediction comes from its transactions alone.")


def _of_registration(lines: "list[RawTransaction]", since: dt.date | None, as_of: dt.date) -> list[str]:
    if since is None:
        return []
    if since >= as_of:
        return [f"customer_since is {since.isoformat()}, not before as_of, {as_of.isoformat()}: counted as unknown."]
    before = sum(line["transaction_date"] < since for line in lines)
    return (
        [f"{before:,} transaction(s) before customer_since, {since.isoformat()}, counted all the same."]
        if before
        else []
    )
