"""A language model that words what the figures say: an OpenAI-compatible endpoint, Groq's by default, asked within a budget.

Whatever goes wrong, the caller gets None in time and words the figures by rules. What is sent is decided in insight_question,
what may be shown in insight_check.
"""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from cachetools import TTLCache

from config import Settings
from services.bounded_calls import Abandonment, BoundedCalls, NoThreadLeft, NotInTime
from services.circuit_breaker import CircuitBreaker
from services.completions import Completions, Endpoint, NoCompletion
from services.insight_check import MalformedWording, Wording, read_wording, refusal
from services.insight_question import Fact, UnfitFact, fit_facts, messages

log = logging.getLogger(__name__)

GROQ_URL = "https://api.groq.com/openai/v1"
GROQ_MODEL = "openai/gpt-oss-20b"
"""The fastest of those that Groq calls fit for production."""
GROQ_EXTRA = {"reasoning_effort": "low"}
"""What that model is told beyond what every model is: wording a few figures needs no long thought."""

NOWHERE = Endpoint("", "", "", {})
"""Never asked."""

MOST_CALLS = 32
"""At once, in one process: those of its eight request threads, and those that were abandoned and do not know it yet."""
FAILURES_ALLOWED = 3
REST_SECONDS = 30.0
LONGEST_REST_SECONDS = 300.0
"""However long an endpoint asks to be left alone."""
CACHED_WORDINGS = 4096


class NoWording(Exception):
    """There is none; `outcome` says why, in one word."""

    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class LanguageModel:
    """Asks the endpoint of the settings; opens nothing before its first question. Safe from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._endpoint = _endpoint(settings)
        self._budget_seconds = settings.llm_budget_seconds
        self._completions = Completions(self._endpoint or NOWHERE)
        self._calls = BoundedCalls(MOST_CALLS)
        self._breaker = CircuitBreaker(FAILURES_ALLOWED, REST_SECONDS)
        self._lock = threading.Lock()
        self._keeps = settings.llm_cache_seconds > 0
        self._known: TTLCache[str, Wording] = TTLCache(CACHED_WORDINGS, settings.llm_cache_seconds)

    @property
    def configured(self) -> bool:
        """Whether there is an endpoint to ask; if not, `ask` is None at once."""
        return self._endpoint is not None

    @property
    def name(self) -> str:
        """The name of the model, as the endpoint knows it; empty without one."""
        return "" if self._endpoint is None else self._endpoint.model

    def ask(self, facts: Mapping[str, Any], task: str) -> Wording | None:
        """The wording of `facts` for `task`, or None for whatever reason: then rules word them.

        facts: of the names in insight_question, None for what is not known. task: what is to be worded, in a sentence of ours.
        Never raises; never takes longer than LLM_BUDGET_SECONDS.
        """
        if not self.configured:
            return None
        started = time.monotonic()
        wording: Wording | None = None
        try:
            wording, outcome = self._wording(fit_facts(facts), task, started + self._budget_seconds)
        except NoWording as problem:
            outcome = problem.outcome
        except UnfitFact as problem:
            log.error("the language model was not asked: %s", problem)
            outcome = "unfit_fact"
        except Exception:
            log.exception("asking the language model failed")
            outcome = "failed"
        seconds = round(time.monotonic() - started, 4)
        log.info("language model", extra={"outcome": outcome, "seconds": seconds, "model": self.name})
        return wording

    def _wording(self, facts: Mapping[str, Fact], task: str, deadline: float) -> tuple[Wording, str]:
        """The wording, and whether it was known. Raises NoWording."""
        key = _key(self.name, facts, task)
        with self._lock:
            known = self._known.get(key)
        if known is not None:
            return known, "cached"
        if not self._completions.is_ready_by(deadline - self._budget_seconds / 2):
            raise NoWording("not_ready")  # which is not the endpoint's failure: the breaker hears nothing of it
        wording = self._answer(facts, task, deadline)
        reason = refusal(wording, facts, task)
        if reason is not None:
            raise NoWording(f"refused_{reason}")
        if self._keeps:
            with self._lock:
                self._known[key] = wording
        return wording, "ok"

    def _answer(self, facts: Mapping[str, Fact], task: str, deadline: float) -> Wording:
        """What the model answers, unless the breaker keeps it from being asked, which hears of what came. Raises NoWording."""
        if not self._breaker.lets_in():
            raise NoWording("breaker_open")
        try:
            wording = read_wording(self._text(facts, task, deadline))
        except NoCompletion as problem:
            asked_for = problem.rest_seconds if problem.rest_seconds > self._budget_seconds else 0.0
            self._breaker.failed(min(asked_for, LONGEST_REST_SECONDS))
            raise NoWording(problem.outcome) from problem
        except MalformedWording:
            self._breaker.failed()
            raise NoWording("malformed") from None
        except BaseException:
            self._breaker.failed()
            raise
        self._breaker.succeeded()
        return wording

    def _text(self, facts: Mapping[str, Fact], task: str, deadline: float) -> str:
        question = messages(facts, task)

        def call(abandonment: Abandonment) -> str:
            return self._completions.text(question, deadline, abandonment)

        try:
            return self._calls.run(call, deadline)
        except NotInTime:
            raise NoCompletion("timeout") from None
        except NoThreadLeft:
            raise NoCompletion("busy") from None


def _endpoint(settings: Settings) -> Endpoint | None:
    """LLM_BASE_URL's, else Groq's if there is a key for it."""
    if settings.llm_base_url:
        return Endpoint(settings.llm_base_url, settings.llm_api_key, settings.llm_model, {})
    if not settings.groq_api_key:
        return None
    model = settings.llm_model or GROQ_MODEL
    return Endpoint(GROQ_URL, settings.groq_api_key, model, GROQ_EXTRA if model == GROQ_MODEL else {})


def _key(model: str, facts: Mapping[str, Fact], task: str) -> str:
    """The same for the same question, whatever order its facts came in."""
    return hashlib.sha256(json.dumps([model, task, facts], sort_keys=True).encode()).hexdigest()
