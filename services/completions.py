"""What an OpenAI-compatible endpoint answers to a few messages: one call, or several within a deadline.

Every call has a connection of its own, which is shut down when the call is abandoned: a timeout of a socket bounds each wait for
bytes, not an answer that drips in for ever. The SDK is imported when it is first waited for, hence after the fork.
"""

import json
import math
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from services.bounded_calls import Abandonment

MAX_BYTES = 256 * 1024
"""Of the body of an answer; a wording has less than a thousandth of it."""
MAX_TOKENS = 1024
"""Of the answer, what the model thinks before it included."""
ATTEMPTS = 3
FIRST_WAIT_SECONDS = 0.2
WORTHWHILE_SECONDS = 0.05
"""With less left before the deadline, the endpoint is not asked again."""
OF_THE_SDK = ("openai-", "x-stainless-")
"""Its own headers: they tell of this machine, or of an account at OpenAI, what no endpoint needs."""
READ_BY_THE_SDK = "x-stainless-raw-response"
"""From the request, when the answer has come."""
REFUSED_REQUEST = (400, 422)
PASSING = (408, 409, 429)
"""With all of 5xx: statuses after which the same request may be answered."""
RATE_LIMITED = 429


class NoCompletion(Exception):
    """The endpoint gave no text. `outcome`: in one word; `rest_seconds`: so long it wants to be left alone, 0 if it named none."""

    def __init__(self, outcome: str, *, is_passing: bool = False, rest_seconds: float = 0.0) -> None:
        super().__init__(outcome)
        self.outcome = outcome
        self.is_passing = is_passing
        self.rest_seconds = rest_seconds


class _OptionsRefused(NoCompletion):
    """The endpoint refused the request as it stood; it may take one without options."""


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, with what key ("" for none), for which model, and with which further fields of the request."""

    base_url: str
    api_key: str
    model: str
    extra: Mapping[str, Any]


class Completions:
    """Asks one endpoint. Safe from any thread."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._opening: threading.Thread | None = None
        self._is_opened = threading.Event()
        self._client: Any = None
        self._current = threading.local()
        self._takes_options = True

    def is_ready_by(self, moment: float) -> bool:
        """Waits for the SDK, which takes a second to import. moment: in seconds of time.monotonic()."""
        with self._lock:
            if self._opening is None:
                self._opening = threading.Thread(target=self._open, name="language-model", daemon=True)
                self._opening.start()
        return self._is_opened.wait(max(moment - time.monotonic(), 0.0)) and self._client is not None

    def _open(self) -> None:
        try:
            self._client = _client(self._endpoint, self._prepare)
        finally:
            self._is_opened.set()

    def text(self, messages: Sequence[Mapping[str, str]], deadline: float, abandonment: Abandonment) -> str:
        """What the model says to `messages`; asked again where that may help before the deadline. Raises NoCompletion.

        Only when it is ready.
        """
        for attempt in range(1, ATTEMPTS):
            try:
                return self._with_or_without_options(messages, deadline, abandonment)
            except NoCompletion as problem:
                wait = problem.rest_seconds or _backoff_seconds(attempt)
                is_time = time.monotonic() + wait + WORTHWHILE_SECONDS < deadline
                if not (problem.is_passing and is_time and abandonment.sleep(wait)):
                    raise
        return self._with_or_without_options(messages, deadline, abandonment)

    def _with_or_without_options(
        self, messages: Sequence[Mapping[str, str]], deadline: float, abandonment: Abandonment
    ) -> str:
        """Remembers an endpoint that only takes the bare request, such as one without JSON mode."""
        if self._takes_options:
            try:
                return self._once(messages, self._options(), deadline, abandonment)
            except _OptionsRefused:
                text = self._once(messages, {}, deadline, abandonment)
                self._takes_options = False
                return text
        return self._once(messages, {}, deadline, abandonment)

    def _options(self) -> dict[str, Any]:
        return {
            "response_format": {"type": "json_object"},
            "max_completion_tokens": MAX_TOKENS,
            "temperature": 0.3,
            **self._endpoint.extra,
        }

    def _once(
        self,
        messages: Sequence[Mapping[str, str]],
        options: Mapping[str, Any],
        deadline: float,
        abandonment: Abandonment,
    ) -> str:
        import httpx2
        import openai

        left = deadline - time.monotonic()
        if left <= 0:
            raise NoCompletion("timeout")
        self._current.watch = watch = _Watch(abandonment)
        try:
            request = self._client.chat.completions.with_streaming_response.create(
                model=self._endpoint.model, messages=list(messages), timeout=left, **options
            )
            with request as response:
                return _content(_body(response, deadline))
        except (openai.OpenAIError, httpx2.HTTPError) as problem:
            raise _no_completion(problem, has_options=bool(options)) from problem
        finally:
            watch.close()

    def _prepare(self, request: Any) -> None:
        """Called by the HTTP client with each request, in the thread that makes it."""
        for name in list(request.headers):
            if name.startswith(OF_THE_SDK) and name != READ_BY_THE_SDK:
                del request.headers[name]
        request.extensions["trace"] = self._current.watch


class _Watch:
    """Learns of each connection as it is made, and shuts it down when the call is abandoned."""

    def __init__(self, abandonment: Abandonment) -> None:
        self._abandonment = abandonment
        self._connected: list[socket.socket] = []

    def __call__(self, event: str, facts: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            connected = facts["return_value"].get_extra_info("socket").dup()  # TLS takes the first one's number away
            self._connected.append(connected)
            self._abandonment.on_abandoned(lambda: _shut_down(connected))

    def close(self) -> None:
        for connected in self._connected:
            connected.close()


def _shut_down(connected: socket.socket) -> None:
    with suppress(OSError):  # it has ended by itself
        connected.shutdown(socket.SHUT_RDWR)


def _client(endpoint: Endpoint, prepare: Callable[[Any], None]) -> Any:
    import httpx2
    import openai

    transport = httpx2.Client(
        event_hooks={"request": [prepare], "response": [_bound]},
        limits=httpx2.Limits(max_keepalive_connections=0),
        follow_redirects=False,
        headers={"Accept-Encoding": "identity"},
    )
    return openai.OpenAI(
        base_url=endpoint.base_url,
        api_key=endpoint.api_key or "none",  # the SDK wants one; endpoints without keys ignore it
        max_retries=0,
        http_client=transport,
    )


def _bound(response: Any) -> None:
    """Lets no more than MAX_BYTES and one be read, of errors too, which the SDK reads to their end before it raises them.

    What was compressed against our wish stays so: it could become a thousand times as long.
    """
    import httpx2

    class Bounded(httpx2.SyncByteStream):
        def __init__(self, whole: Any) -> None:
            self._whole = whole

        def __iter__(self) -> Iterator[bytes]:
            left = MAX_BYTES + 1
            for part in self._whole:
                yield part[:left]
                left -= len(part)
                if left <= 0:
                    return

        def close(self) -> None:
            self._whole.close()

    response.stream = Bounded(response.stream)
    response.headers.pop("content-encoding", None)


def _body(response: Any, deadline: float) -> bytes:
    """The whole body, unless it is too long or is not there in time."""
    body = bytearray()
    for part in response.iter_bytes():
        body += part
        if len(body) > MAX_BYTES:
            raise NoCompletion("too_long")
        if time.monotonic() > deadline:
            raise NoCompletion("timeout")
    return bytes(body)


def _content(body: bytes) -> str:
    """The text of the first choice. Raises NoCompletion unless the body is a completion in the form of OpenAI's."""
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise NoCompletion("malformed") from None
    if not isinstance(content, str):
        raise NoCompletion("malformed")
    return content


def _no_completion(problem: Exception, has_options: bool) -> NoCompletion:
    """What a failure of the SDK, or of the HTTP client while the body was read, means to us."""
    import httpx2
    import openai

    if isinstance(problem, openai.APIStatusError):
        return _of_status(problem.status_code, problem.response.headers, str(problem.body), has_options)
    if isinstance(problem, openai.APITimeoutError | httpx2.TimeoutException):
        return NoCompletion("timeout")
    return NoCompletion("unreachable", is_passing=True)


def _of_status(status: int, headers: Mapping[str, str], body: str, has_options: bool) -> NoCompletion:
    if status == RATE_LIMITED:
        return NoCompletion("rate_limited", is_passing=True, rest_seconds=_retry_after_seconds(headers))
    if status in REFUSED_REQUEST and "json_validate_failed" in body:  # Groq: the model's text was no JSON
        return NoCompletion("malformed")
    if status in REFUSED_REQUEST and has_options:
        return _OptionsRefused(f"status_{status}")
    is_passing = status in PASSING or status >= 500
    return NoCompletion(f"status_{status}", is_passing=is_passing, rest_seconds=_retry_after_seconds(headers))


def _retry_after_seconds(headers: Mapping[str, str]) -> float:
    """What Retry-After names in seconds; 0 without it, or where it is a date, which no such endpoint sends."""
    try:
        seconds = float(headers.get("retry-after", "0"))
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0


def _backoff_seconds(attempt: int) -> float:
    """Doubles with each attempt, and is shorter by chance by up to half, so that many callers do not return at once."""
    return FIRST_WAIT_SECONDS * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.0)
