"""Predictions from raw histories: the answer that a known customer gets, from the same feature code."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from ml_pipeline.schema import DatasetConfig
from services.errors import RequestTooLarge, ServiceError
from services.explanation import explanations_of
from services.history_engines import HistoryEngines
from services.history_requests import HistoryRequest, read_history, shop_config
from services.model_registry import Model
from services.prediction_answers import add_reasons, shaped_answers

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ml_pipeline.snapshot import Answers

BATCH_TRANSACTIONS_LIMIT = 100_000
BATCH_DAYS_LIMIT = 100
LINES_AT_ONCE = 20_000
ENGINES = HistoryEngines()
"""Of this process; empty until the first history comes."""


def warm_engine(model: Model) -> None:
    """Opens an engine for histories of the model's shop, unless there is one."""
    with ENGINES.borrow(model.bundle.targets):
        pass


def history_answers(
    model: Model, requests: Sequence[Mapping[str, Any]], explain: bool = False
) -> list[dict[str, Any] | ServiceError]:
    """One answer per request, in their order; what cannot be answered is its error, in its place.

    Raises RequestTooLarge when all of them together are too much, NoServingModel and BundleMismatch.
    """
    _check_size(requests)
    config = shop_config(model.bundle)
    read = [_read(request, config, model.as_of) for request in requests]
    histories = [one for one in read if isinstance(one, HistoryRequest)]
    answers = iter(_answers(model, config, histories, explain))
    return [next(answers) if isinstance(one, HistoryRequest) else one for one in read]


def _check_size(requests: Sequence[Mapping[str, Any]]) -> None:
    lines = sum(len(request["transactions"]) for request in requests if isinstance(request["transactions"], list))
    if len(requests) > 1 and lines > BATCH_TRANSACTIONS_LIMIT:
        raise RequestTooLarge(
            f"The histories of the batch have {lines:,} transactions; at most {BATCH_TRANSACTIONS_LIMIT:,} are read at once. "
            "Send several batches."
        )


def _read(request: Mapping[str, Any], config: DatasetConfig, served_as_of: date) -> HistoryRequest | ServiceError:
    try:
        return read_history(request, config, served_as_of)
    except ServiceError as problem:
        return problem


def _answers(
    model: Model, config: DatasetConfig, histories: Sequence[HistoryRequest], explain: bool
) -> list[dict[str, Any]]:
    if not histories:
        return []
    from ml_pipeline.snapshot import shown_columns

    features, bought = _features(model, config, histories)
    predicted = _predict(model, features, bought, histories)
    answers = list(
        shaped_answers(
            model,
            [history.customer_id for history in histories],
            [history.as_of for history in histories],
            shown_columns(model.bundle.targets, predicted),
            lambda row: features[row],
        )
    )
    if explain:
        names = model.predictor.get().raw_names
        raw = {name: predicted.raw[:, index] for index, name in enumerate(names)}
        add_reasons(answers, raw, _explained(model, histories, features, predicted))
    for answer, history in zip(answers, histories, strict=True):
        if history.warnings:
            answer["warnings"] = history.warnings
        if history.ignored:
            answer["ignored_inputs"] = history.ignored
    return answers


def _by_day(histories: Sequence[HistoryRequest]) -> dict[date, list[int]]:
    """The rows of the histories that are answered for the same day."""
    rows: dict[date, list[int]] = defaultdict(list)
    for row, history in enumerate(histories):
        rows[history.as_of].append(row)
    return rows


def _features(
    model: Model, config: DatasetConfig, histories: Sequence[HistoryRequest]
) -> "tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]":
    """Features (n, F) and who has a valid purchase before his as_of (n,); the others' rows are NaN."""
    import numpy as np

    by_day = _by_day(histories)
    if len(by_day) > BATCH_DAYS_LIMIT:
        raise RequestTooLarge(
            f"The histories of the batch are for {len(by_day):,} different as_of days; at most {BATCH_DAYS_LIMIT} are answered "
            "at once. Give them one as_of, or send several batches."
        )
    found = np.full((len(histories), len(model.bundle.features)), np.nan, dtype=np.float32)
    bought = np.zeros(len(histories), dtype=bool)
    with ENGINES.borrow(model.bundle.targets) as engine:
        for as_of, rows in by_day.items():
            for some in _within_limit(histories, rows):
                seen = engine.read(*_tables(histories, some, config), as_of)
                places = seen.customer_id.astype(np.int64)
                found[places], bought[places] = seen.features, True
    return found, bought


def _within_limit(histories: Sequence[HistoryRequest], rows: Sequence[int]) -> Iterator[list[int]]:
    """The rows in groups of LINES_AT_ONCE lines and one history more at most: what an engine needs is bounded."""
    reached = itertools.accumulate(len(histories[row].lines) for row in rows)
    groups = itertools.groupby(zip(rows, reached, strict=True), lambda row_and_lines: row_and_lines[1] // LINES_AT_ONCE)
    for _group, members in groups:
        yield [row for row, _lines in members]


def _tables(histories: Sequence[HistoryRequest], rows: Sequence[int], config: DatasetConfig) -> tuple[Any, Any]:
    """Purchases and customers; each history is somebody of his own, whoever the requests say that they are."""
    import pyarrow as pa

    from ml_pipeline.history import CUSTOMERS_SCHEMA, purchases_from_histories

    purchases = purchases_from_histories([(str(row), histories[row].lines) for row in rows], config)
    customers = [{"customer_id": str(row), "customer_since": histories[row].customer_since} for row in rows]
    return purchases, pa.Table.from_pylist(customers, schema=CUSTOMERS_SCHEMA)


def _predict(
    model: Model,
    features: "npt.NDArray[np.float32]",
    bought: "npt.NDArray[np.bool_]",
    histories: Sequence[HistoryRequest],
) -> "Answers":
    """The answers (n,) in the order of the histories."""
    import numpy as np

    from ml_pipeline.predictor import joined
    from ml_pipeline.registration import registration_ages
    from ml_pipeline.snapshot import Answers

    predictor = model.predictor.get()
    buyers, others = np.flatnonzero(bought), np.flatnonzero(~bought)
    since = [(history.as_of, history.customer_since) for history in histories]
    days = np.array([(as_of - day).days if day else np.nan for as_of, day in since], dtype=np.float64)[others]
    never = predictor.predict_never_bought(registration_ages(days))
    both = joined(predictor.predict(features[buyers]), never) if len(buyers) else never
    place = np.argsort(np.concatenate([buyers, others]))
    return Answers(**{name: getattr(both, name)[place] for name in Answers.__annotations__})


def _explained(
    model: Model,
    histories: Sequence[HistoryRequest],
    features: "npt.NDArray[np.float32]",
    predicted: "Answers",
) -> list[dict[str, Any]]:
    explained: dict[int, dict[str, Any]] = {}
    for as_of, rows in _by_day(histories).items():
        explained.update(zip(rows, explanations_of(model, as_of, features[rows], predicted.money[rows]), strict=True))
    return [explained[row] for row in range(len(histories))]
