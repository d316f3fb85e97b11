"""Callers of a swapping run: what they ask, what each pair answers to it, and whether an answer is one of those."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import requests
from flask.testing import FlaskClient

from app import create_app
from benchmarks.hot_swap_models import SwapModels
from config import load_settings
from ml_pipeline.bundle import ServingPair
from ml_pipeline.pointer import Serving, write_serving
from routes.summary_messages import DOCUMENTED_SUMMARY
from services.bootstrap import build_services
from worker.queue import CeleryQueue

VOLATILE = ("timestamp", "prediction_date")
TIMEOUT = 30.0
SIX_NUMBERS = {"customer_id": "13085", "features": [345.7, 49.3, 7, 12, 5, 4]}


@dataclass(frozen=True)
class Question:
    """One request; what it is called in the table, where it goes, and its body (None: GET)."""

    name: str
    path: str
    body: Any


@dataclass(frozen=True)
class Answered:
    """at: seconds since the beginning when the answer was there; status 0: the connection broke. wrong: empty if it is right."""

    at: float
    seconds: float
    question: str
    status: int
    version: str
    as_of: str
    wrong: str


def questions(ids: Sequence[str]) -> list[Question]:
    """A mixture of all ways to ask."""
    history = {
        "transactions": [{"transaction_date": f"2025-{month:02d}-11", "amount": 90 + month} for month in range(5, 12)]
    }
    batch: list[Any] = [*ids[:40], DOCUMENTED_SUMMARY, history]
    by_id = [Question("/predict by id", "/predict", {"customer_id": each}) for each in ids[:6]]
    return [
        *by_id[:2],
        Question("/predict/batch, all ways mixed", "/predict/batch", batch),
        *by_id[2:4],
        Question("/predict by summary", "/predict", DOCUMENTED_SUMMARY),
        Question("/predict/sum of a segment", "/predict/sum", {"segment": "High Value"}),
        *by_id[4:],
        Question("/predict by id, explained", "/predict?explain=true", {"customer_id": ids[7]}),
        Question("/predict by raw history", "/predict", history),
        Question("/predict_customer_value", "/predict_customer_value", SIX_NUMBERS),
        Question("/model/info", "/model/info", None),
    ]


def plain(answer: Any) -> Any:
    """Without what the clock says."""
    if isinstance(answer, dict):
        return {name: plain(value) for name, value in answer.items() if name not in VOLATILE}
    return [plain(value) for value in answer] if isinstance(answer, list) else answer


class RightAnswers:
    """What each good pair answers to each question when it serves alone."""

    def __init__(self, models: SwapModels, asked: Sequence[Question], folder: Path) -> None:
        self._asked = asked
        self._answers: dict[int, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
        for number, pair in enumerate(models.good):
            client = _alone(models.folder, pair, folder / str(number))
            for place, question in enumerate(asked):
                body = _asked_of(client, question)
                self._answers[place][_version(body)].append(body)

    def differ(self) -> int:
        """Questions to which no two pairs give the same answer, whatever it says of who gave it."""
        return sum(self._are_different(list(by_version.values())) for by_version in self._answers.values())

    def judged(self, place: int, answer: Any) -> str:
        """Empty if the answer is that of one of the pairs whose bundle it names, in every number."""
        right = self._answers[place].get(_version(answer), [])
        if any(answer == each for each in right):
            return ""
        name, version = self._asked[place].name, _version(answer)
        return f"{name}: {'not what' if right else 'nobody called'} {version} answers: {json.dumps(answer)[:200]}"

    @staticmethod
    def _are_different(groups: list[list[Any]]) -> bool:
        told = [json.dumps(without_names(each), sort_keys=True) for group in groups for each in group]
        return len(set(told)) == len(told)


def without_names(answer: Any) -> Any:
    """An answer's numbers, without the names of bundle and snapshot."""
    if isinstance(answer, dict):
        return {
            name: without_names(value) for name, value in answer.items() if name not in ("model_version", "snapshot")
        }
    return [without_names(value) for value in answer] if isinstance(answer, list) else answer


def _version(body: Mapping[str, Any]) -> str:
    return str(body.get("model_version", ""))


def _alone(models: Path, pair: ServingPair, folder: Path) -> FlaskClient:
    """The app with this pair and no other."""
    home = folder / "models"
    home.mkdir(parents=True)
    for kind in ("versions", "snapshots"):
        (home / kind).symlink_to(models / kind)
    write_serving(home, Serving(pair))
    settings = load_settings({"MODELS_DIR": str(home), "VAR_DIR": str(folder / "var"), "LOG_LEVEL": "ERROR"})
    return create_app(services=build_services(settings, CeleryQueue(settings))).test_client()


def _asked_of(client: FlaskClient, question: Question) -> Any:
    answer = client.get(question.path) if question.body is None else client.post(question.path, json=question.body)
    assert answer.status_code == 200, f"{question.name}: {answer.get_data(as_text=True)}"
    return plain(answer.get_json())


class Load:
    """So many connections that ask without a pause until told to stop."""

    def __init__(self, url: str, asked: Sequence[Question], right: RightAnswers, connections: int) -> None:
        self._url, self._asked, self._right = url, asked, right
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(connections)
        ]
        self.answers: list[Answered] = []
        self.began = 0.0

    def warm_up(self) -> None:
        """Every question over every connection before it counts: what a process opens at its first use is open then."""
        warming = [threading.Thread(target=self._ask_all) for _ in self._threads]
        for thread in warming:
            thread.start()
        for thread in warming:
            thread.join()

    def _ask_all(self) -> None:
        session = requests.Session()
        for place in 2 * [*range(len(self._asked))]:
            self._answered(session, place)

    def start(self) -> None:
        """All of them at once."""
        self.began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> float:
        """Waits for the last answers; for how long was asked."""
        self._over.set()
        seconds = time.monotonic() - self.began
        for thread in self._threads:
            thread.join(2 * TIMEOUT)
        return seconds

    def since_began(self) -> float:
        """Seconds."""
        return time.monotonic() - self.began

    def _ask(self, number: int) -> None:
        session = requests.Session()
        for turn in count(5 * number):
            if self._over.is_set():
                return
            place = turn % len(self._asked)
            self.answers.append(self._answered(session, place))

    def _answered(self, session: requests.Session, place: int) -> Answered:
        question, began = self._asked[place], time.monotonic()
        method = "GET" if question.body is None else "POST"
        try:
            answer = session.request(method, f"{self._url}{question.path}", json=question.body, timeout=TIMEOUT)
        except requests.RequestException as problem:
            now = time.monotonic()
            return Answered(now - self.began, now - began, question.name, 0, "", "", f"{question.name}: {problem}")
        now = time.monotonic()
        if answer.status_code != 200:
            said = f"{question.name}: {answer.status_code} {answer.text[:200]}"
            return Answered(now - self.began, now - began, question.name, answer.status_code, "", "", said)
        body = plain(answer.json())
        facts = (question.name, 200, _version(body), str(body.get("as_of", "")))
        return Answered(now - self.began, now - began, *facts, self._right.judged(place, body))
