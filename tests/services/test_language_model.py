"""The language model's client against a real server in a process of its own, which fails in every way that it is told."""

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from config import ROOT, load_settings
from services import language_model
from services.language_model import GROQ_MODEL, GROQ_URL, LanguageModel
from tests.openai_server import INVENTED, OpenAIServer

BUDGET = 0.4
"""Seconds, where it is to run out."""
LATE = 0.5
"""Seconds that a busy machine may add; benchmarks/insights_faults.py measures them."""
TASK = "Word it."
KEY = "a-key-that-nobody-may-see"
FAILURES = (
    ("malformed", {}, "malformed"),
    ("broken_body", {}, "malformed"),
    ("wrong_type", {}, "malformed"),
    ("invents", {}, "refused_number"),
    ("huge", {}, "too_long"),
    ("endless_error", {}, "status_500"),
    ("compressed", {}, "malformed"),
    ("rate_limited", {}, "rate_limited"),
    ("rate_limited", {"seconds": 30}, "rate_limited"),
    ("error", {"status": 500}, "status_500"),
    ("error", {"status": 401}, "status_401"),
    ("error", {"status": 400}, "status_400"),
    ("redirects", {}, "status_307"),
    ("drops", {}, "unreachable"),
    ("drops_halfway", {}, "unreachable"),
    ("slow", {"seconds": 2}, "timeout"),
    ("hangs", {}, "timeout"),
    ("drips", {}, "timeout"),
    ("drips_head", {}, "timeout"),
)

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def running() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def server(running) -> OpenAIServer:
    """It answers well at first."""
    running.does("answers")
    return running


@pytest.fixture
def model(server) -> Callable[..., LanguageModel]:
    """A client of it, with nothing remembered; further settings by name."""

    def made(**settings: str) -> LanguageModel:
        given = {"LLM_BASE_URL": server.url, "LLM_MODEL": "stub", "LLM_BUDGET_SECONDS": "5", "LLM_API_KEY": KEY}
        return LanguageModel(load_settings({**given, **settings}))

    return made


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """The SDK is imported with the first question, which takes longer than the small budgets here."""
    import openai  # noqa: F401


def facts(number: int = 7) -> dict[str, object]:
    return {"num_transactions": number, "total_spend": 345.7, "currency": "INR", "category_to_offer": "Toys"}


def outcomes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.outcome for record in caplog.records if record.message == "language model"]


def test_a_good_answer_is_returned_and_was_asked_for_as_json(model, server):
    wording = model().ask(facts(), TASK)
    assert wording is not None
    assert "num transactions: 7" in wording.insight
    (received,) = server.received()
    assert received["path"] == "/v1/chat/completions"
    assert received["headers"]["authorization"] == f"Bearer {KEY}"
    body = received["body"]
    assert (body["model"], body["response_format"]) == ("stub", {"type": "json_object"})
    assert json.loads(body["messages"][-1]["content"]) == {"task": TASK, "facts": facts()}


def test_a_fenced_answer_of_a_thinking_model_is_understood(model, server):
    server.does("fenced")
    assert model().ask(facts(), TASK) is not None


@pytest.mark.parametrize(("mode", "how", "outcome"), FAILURES)
def test_every_failure_gives_none_within_the_budget_and_is_logged_by_its_name(
    mode, how, outcome, model, server, caplog
):
    server.does(mode, **how)
    caplog.set_level(logging.INFO)
    asked = model(LLM_BUDGET_SECONDS=str(BUDGET))
    started = time.monotonic()
    assert asked.ask(facts(), TASK) is None
    assert time.monotonic() - started < BUDGET + LATE
    assert outcomes(caplog) == [outcome]


def test_nobody_listening_is_a_failure_like_others(model, caplog):
    caplog.set_level(logging.INFO)
    assert model(LLM_BASE_URL="http://127.0.0.1:9/v1").ask(facts(), TASK) is None
    assert outcomes(caplog) == ["unreachable"]


@pytest.mark.parametrize("mode", ["hangs", "drips", "drips_head"])
def test_calls_that_are_abandoned_are_hung_up_and_their_threads_end(mode, model, server):
    server.does(mode)
    asked = model(LLM_BUDGET_SECONDS="0.2")
    with ThreadPoolExecutor(40) as pool:
        started = time.monotonic()
        assert set(pool.map(lambda number: asked.ask(facts(number), TASK), range(40))) == {None}
        assert time.monotonic() - started < 0.2 + 2 * LATE
    until = time.monotonic() + 5
    while (server.broken_off() < len(server.received()) or _calls()) and time.monotonic() < until:
        time.sleep(0.02)
    assert server.broken_off() == len(server.received()) <= language_model.MOST_CALLS
    assert _calls() == []


def _calls() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "bounded"]


def test_what_fails_three_times_in_a_row_is_left_alone_then_tried_by_one(model, server, caplog, monkeypatch):
    monkeypatch.setattr(language_model, "REST_SECONDS", 0.3)
    caplog.set_level(logging.INFO)
    asked = model()
    server.does("malformed")
    for number in range(6):
        assert asked.ask(facts(number), TASK) is None
    assert outcomes(caplog) == ["malformed"] * 3 + ["breaker_open"] * 3
    assert len(server.received()) == 3
    time.sleep(0.3)
    server.does("slow", seconds=0.2)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: asked.ask(facts(number), TASK), range(8)))
    assert sum(answer is not None for answer in answers) == len(server.received()) == 1
    server.does("answers")
    assert asked.ask(facts(99), TASK) is not None


def test_a_breaker_that_is_tried_in_vain_opens_again(model, server, monkeypatch):
    monkeypatch.setattr(language_model, "REST_SECONDS", 0.2)
    asked = model()
    server.does("malformed")
    for number in range(4):
        asked.ask(facts(number), TASK)
    time.sleep(0.2)
    for number in range(4):
        asked.ask(facts(number), TASK)
    assert len(server.received()) == 3 + 1


def test_an_invented_number_is_no_failure_of_the_endpoint(model, server, caplog):
    caplog.set_level(logging.INFO)
    server.does("invents")
    asked = model()
    for number in range(5):
        assert asked.ask(facts(number), TASK) is None
    assert outcomes(caplog) == ["refused_number"] * 5


@pytest.mark.parametrize(
    ("mode", "how"), [("error", {"status": 503}), ("drops", {}), ("rate_limited", {"seconds": 0.1})]
)
def test_a_failure_that_passes_is_asked_again(mode, how, model, server):
    server.does(mode, times=1, **how)
    assert model().ask(facts(), TASK) is not None
    assert len(server.received()) == 2


@pytest.mark.parametrize("how", [{"status": 401}, {"status": 404}])
def test_a_failure_that_stays_is_not_asked_again(how, model, server):
    server.does("error", **how)
    model().ask(facts(), TASK)
    assert len(server.received()) == 1


def test_an_endpoint_that_wants_a_longer_rest_than_the_budget_gets_it_at_once(model, server, caplog):
    caplog.set_level(logging.INFO)
    server.does("rate_limited", seconds=30)
    asked = model()
    started = time.monotonic()
    for number in range(3):
        assert asked.ask(facts(number), TASK) is None
    assert time.monotonic() - started < 2
    assert outcomes(caplog) == ["rate_limited", "breaker_open", "breaker_open"]
    assert len(server.received()) == 1


def test_an_endpoint_without_json_mode_is_asked_without_it_from_then_on(model, server):
    server.does("without_options")
    asked = model()
    assert asked.ask(facts(1), TASK) is not None
    assert asked.ask(facts(2), TASK) is not None
    assert ["response_format" in each["body"] for each in server.received()] == [True, False, False]


def test_the_same_question_is_asked_once_whatever_the_order_of_its_facts(model, server, caplog):
    caplog.set_level(logging.INFO)
    asked = model()
    first = asked.ask(facts(), TASK)
    assert asked.ask(dict(reversed(facts().items())), TASK) == first
    assert asked.ask(facts(8), TASK) != first
    assert asked.ask(facts(), "Word it otherwise.") == first  # by this server, which does not read the task
    assert outcomes(caplog) == ["ok", "cached", "ok", "ok"]
    assert len(server.received()) == 3


def test_without_a_cache_and_after_a_failure_it_is_asked_each_time(model, server):
    uncached = model(LLM_CACHE_SECONDS="0")
    assert uncached.ask(facts(), TASK) == uncached.ask(facts(), TASK) is not None
    assert len(server.received()) == 2
    server.does("invents", times=1)
    asked = model()
    assert asked.ask(facts(), TASK) is None
    assert asked.ask(facts(), TASK) is not None


@pytest.mark.parametrize("further", [{"customer_id": "C00017"}, {"first_name": "Asha"}, {"email": "asha@example.com"}])
def test_who_a_customer_is_never_leaves_the_service(further, model, server, caplog):
    asked = model()
    assert asked.ask({**facts(), **further}, TASK) is None
    assert server.received() == []
    assert next(iter(further)) in caplog.text
    assert next(iter(further.values())) not in caplog.text


def test_nothing_of_this_machine_is_told_and_nothing_of_the_text_or_the_key_is_logged(model, server, caplog):
    logging.getLogger("openai").setLevel(logging.WARNING)  # as services.logs has it at every level
    caplog.set_level(logging.DEBUG)
    server.does("invents")
    model().ask(facts(), TASK)
    (received,) = server.received()
    assert not any(name.lower().startswith(("openai-", "x-stainless-os")) for name in received["headers"])
    (record,) = [record for record in caplog.records if record.message == "language model"]
    assert (record.outcome, record.model) == ("refused_number", "stub")
    assert 0 < record.seconds < 5
    said = " ".join(str(vars(record)) for record in caplog.records)
    for secret in (KEY, INVENTED, "345.7"):
        assert secret not in said


def test_without_an_endpoint_nothing_is_asked_and_nothing_is_imported():
    asked = LanguageModel(load_settings({}))
    assert (asked.configured, asked.name, asked.ask(facts(), TASK)) == (False, "", None)
    code = (
        "import sys; from config import load_settings; from services.language_model import LanguageModel; "
        "LanguageModel(load_settings({'GROQ_API_KEY': 'gsk'})); sys.exit('openai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_key_for_groq_is_enough_and_another_endpoint_goes_before_it():
    groq = LanguageModel(load_settings({"GROQ_API_KEY": "gsk"}))
    assert (groq.configured, groq.name, groq._endpoint.base_url) == (True, GROQ_MODEL, GROQ_URL)
    other = LanguageModel(load_settings({"GROQ_API_KEY": "gsk", "LLM_MODEL": "qwen/qwen3.6-27b"}))
    assert (other.name, other._endpoint.extra) == ("qwen/qwen3.6-27b", {})
    own = LanguageModel(load_settings({"GROQ_API_KEY": "gsk", "LLM_BASE_URL": "http://localhost/v1", "LLM_MODEL": "m"}))
    assert (own._endpoint.base_url, own._endpoint.api_key) == ("http://localhost/v1", "")


def test_a_first_question_waits_for_the_sdk_without_blaming_the_endpoint(model, server, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    asked = model(LLM_BUDGET_SECONDS=str(BUDGET))
    is_imported = threading.Event()
    opened = asked._completions._open
    monkeypatch.setattr(asked._completions, "_open", lambda: is_imported.wait(5) and opened())
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda number: asked.ask(facts(number), TASK), range(8))) == {None}
    assert time.monotonic() - started < BUDGET + LATE
    is_imported.set()
    assert asked._completions.is_ready_by(time.monotonic() + 5)
    assert asked.ask(facts(), TASK) is not None
    assert outcomes(caplog) == ["not_ready"] * 8 + ["ok"]
