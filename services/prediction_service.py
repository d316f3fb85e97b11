"""Predictions for one customer or many, whichever way they are described: by an id, a summary or a raw history."""

import datetime as dt
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_pipeline.errors import ModelError
from ml_pipeline.schema import HORIZON_DAYS, MAX_ID_LENGTH
from services.errors import InvalidRequest, RequestTooLarge, ServiceError, UnknownCustomer
from services.history_answers import history_answers, warm_engine
from services.history_requests import OPTIONS, is_history
from services.ignored_inputs import ignored_inputs
from services.model_registry import Model, ModelRegistry
from services.prediction_answers import stored_answers
from services.requested_ids import is_blank, is_text_or_number, read_id
from services.summary_answers import BEST, DEFAULT_OPTIONS, SummaryOptions, summary_answers
from services.summary_fields import UNUSED_FIELDS
from services.summary_requests import is_summary, told_fields

log = logging.getLogger(__name__)

BATCH_LIMIT = 10_000
EXPLAINED_BATCH_LIMIT = 1_000
USED_FIELDS = ("customer_id", "transactions")
WHY_IGNORED = "A known customer's prediction comes from the stored purchases alone."
NOT_STORED = "A known customer is predicted as of the served day. Send his transactions to predict him as of another."
Answer = dict[str, Any] | ServiceError
AnswerAll = Callable[[Model, Sequence[Mapping[str, Any]], bool, SummaryOptions], list[Answer]]


class PredictionService:
    """Answers requests in any of the three ways, each batch from one model."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def warm(self) -> None:
        """Opens what the first request would wait for: the model, and an engine of raw histories. Never raises for the lack of one."""
        try:
            warm_engine(self._registry.serving())
        except (ModelError, ServiceError) as problem:
            log.info("nothing to warm", extra={"error": type(problem).__name__, "reason": str(problem)})

    def predict(
        self, request: Mapping[str, Any], explain: bool = False, options: SummaryOptions = DEFAULT_OPTIONS
    ) -> dict[str, Any]:
        """The answer to one request, by the names that the API documents.

        explain adds `raw` and `explanation` where purchases are known; options are for summaries. Raises
        InvalidRequest, RequestTooLarge, UnknownCustomer, and what the registry raises.
        """
        (answer,) = _answers(self._registry.serving(), [request], explain, options)
        if isinstance(answer, ServiceError):
            raise answer
        return answer

    def predict_batch(
        self, requests: Sequence[Any], explain: bool = False, options: SummaryOptions = DEFAULT_OPTIONS
    ) -> dict[str, Any]:
        """The answers in the order of the requests; one that cannot be answered has `error` and `message` in its place.

        Each request is an id or an object. Raises RequestTooLarge, and what the registry raises.
        """
        _check_size(len(requests), explain)
        model = self._registry.serving()
        asked = [entry if isinstance(entry, Mapping) else {"customer_id": entry} for entry in requests]
        answers = _answers(model, asked, explain, options)
        rows = [
            _row_error(request, answer) if isinstance(answer, ServiceError) else answer
            for request, answer in zip(asked, answers, strict=True)
        ]
        failed = sum(isinstance(answer, ServiceError) for answer in answers)
        return {
            "predictions": rows,
            "model_type": _model_type(model, options),
            "model_version": model.version,
            "total_predictions": len(rows),
            "successful": len(rows) - failed,
            "failed": failed,
            "timestamp": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        }


def _model_type(model: Model, options: SummaryOptions) -> str:
    """What was asked for, else the name of what answers known customers."""
    if options.model_type != BEST:
        return options.model_type
    return str(model.bundle.content["serving"]["total"].get("name", BEST))


def _check_size(entries: int, explain: bool) -> None:
    if explain and entries > EXPLAINED_BATCH_LIMIT:
        raise RequestTooLarge(
            f"The batch has {entries:,} entries; at most {EXPLAINED_BATCH_LIMIT:,} are explained at once. Send several "
            "batches, leave out ?explain=true, or write the reasons of many customers to a file with "
            "python -m ml_pipeline.explain."
        )
    if entries > BATCH_LIMIT:
        raise RequestTooLarge(
            f"The batch has {entries:,} entries; at most {BATCH_LIMIT:,} are answered at once. "
            "Send several batches, or a file to POST /bulk/predict."
        )


def _answers(
    model: Model, requests: Sequence[Mapping[str, Any]], explain: bool, options: SummaryOptions
) -> list[Answer]:
    """One answer or error per request, in order; the requests of one way are answered together."""
    by_way: dict[AnswerAll, list[int]] = defaultdict(list)
    for place, request in enumerate(requests):
        by_way[_way_of(request)].append(place)
    answers: dict[int, Answer] = {}
    for answer_all, places in by_way.items():
        some = [requests[place] for place in places]
        answers.update(zip(places, answer_all(model, some, explain, options), strict=True))
    return [answers[place] for place in range(len(requests))]


def _way_of(request: Mapping[str, Any]) -> AnswerAll:
    """Transactions if there are any, else any field of a summary, else the id; null is as good as absent."""
    if is_history(request):
        return _contradictions if told_fields(request) else _of_histories
    return _of_summaries if is_summary(request) else _of_ids


def _contradictions(
    _model: Model, requests: Sequence[Mapping[str, Any]], _explain: bool, _options: SummaryOptions
) -> list[Answer]:
    return [_contradiction(told_fields(request)) for request in requests]


def _contradiction(summary: Sequence[str]) -> InvalidRequest:
    return InvalidRequest(
        f"transactions and {', '.join(dict.fromkeys(summary))} were sent together; they are two ways to describe a customer. "
        "Send one."
    )


def _of_histories(
    model: Model, requests: Sequence[Mapping[str, Any]], explain: bool, options: SummaryOptions
) -> list[Answer]:
    return [_with_ignored(answer, _unused_options(options)) for answer in history_answers(model, requests, explain)]


def _of_summaries(
    model: Model, requests: Sequence[Mapping[str, Any]], explain: bool, options: SummaryOptions
) -> list[Answer]:
    ignored = [{"field": "explain", "reason": UNUSED_FIELDS["explain"]}] if explain else []
    return [_with_ignored(answer, ignored) for answer in summary_answers(model, requests, options)]


# ---- customers whose purchases are stored


def _of_ids(
    model: Model, requests: Sequence[Mapping[str, Any]], explain: bool, options: SummaryOptions
) -> list[Answer]:
    found = [_id_or_error(request) for request in requests]
    searched = [one if isinstance(one, str) and len(one) <= MAX_ID_LENGTH else "" for one in found]
    positions = model.snapshot.positions(searched).tolist()
    answers = iter(stored_answers(model, [position for position in positions if position >= 0], explain))
    unused = _unused_options(options)
    return [
        _with_ignored(next(answers), [*_ignored_fields(request), *unused])
        if position >= 0
        else _unknown(one, model)
        if isinstance(one, str)
        else one
        for request, one, position in zip(requests, found, positions, strict=True)
    ]


def _id_or_error(request: Mapping[str, Any]) -> str | ServiceError:
    try:
        return read_id(request.get("customer_id"))
    except InvalidRequest as problem:
        return problem


def _unknown(customer_id: str, model: Model) -> UnknownCustomer:
    return UnknownCustomer(
        f"There is no customer {customer_id[:40]!r} among the {model.snapshot.n_customers:,} known on {model.as_of.isoformat()}. "
        "Check the id, train again on newer tables, or send the customer's transactions."
    )


# ---- what is said beside an answer


def _row_error(request: Mapping[str, Any], problem: ServiceError) -> dict[str, Any]:
    given = request.get("customer_id")
    row = {"customer_id": str(given)} if is_text_or_number(given) else {}
    return {**row, "error": type(problem).__name__, "message": str(problem)}


def _with_ignored(answer: Answer, ignored: Sequence[dict[str, str]]) -> Answer:
    if ignored and not isinstance(answer, ServiceError):
        answer["ignored_inputs"] = [*answer.get("ignored_inputs", []), *ignored]
    return answer


def _ignored_fields(request: Mapping[str, Any]) -> list[dict[str, str]]:
    sent = (name for name, value in request.items() if not is_blank(value) and name not in USED_FIELDS)
    return ignored_inputs(sent, _why_ignored)


def _why_ignored(name: str) -> str:
    return NOT_STORED if name == "as_of" else OPTIONS.get(name, WHY_IGNORED)


def _unused_options(options: SummaryOptions) -> list[dict[str, str]]:
    """What was asked for in the address and holds for summaries alone."""
    asked = {"model_type": options.model_type != BEST, "horizon_days": options.horizon_days not in (None, HORIZON_DAYS)}
    return [{"field": name, "reason": OPTIONS[name]} for name, unused in asked.items() if unused]
