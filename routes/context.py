"""What surrounds every request: its id, who asks, which bodies are taken, one log line, and a body read to its end."""

import ipaddress
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Request, Response, current_app, g, request
from gunicorn.http.errors import ParseException

from config import Settings
from services.bootstrap import Services
from services.bulk_service import Caller
from services.errors import IdentityRequired, InvalidRequest, MissingFile, UnsupportedMediaType
from services.job_events import StreamSlots
from services.logs import accept_request_id, bind_request_id

log = logging.getLogger(__name__)

EXTENSION = "customer_spend"
JSON_LIMIT = 16 * 1024 * 1024
PROXY_HEADERS = (
    "Forwarded",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-IP",
    "CF-Connecting-IP",
    "True-Client-IP",
)
"""Any of these says that somebody passes the request on; not every proxy is set up to say for whom."""
OPEN_TO_ALL = ("/health/live", "/health/ready")
"""Probes come from other hosts, and these tell nothing but alive or not."""
EVENT_STREAMS = 4
"""At most so many streams of events in a process, unless its server says otherwise (gunicorn.conf.py: half of its threads)."""
DRAIN_SECONDS = 30.0
DRAIN_BYTES = 4 * 1024**3
STALLED_SECONDS = 5.0


def services() -> Services:
    """The services of the app that answers."""
    found: Services = current_app.extensions[EXTENSION]
    return found


def caller() -> Caller:
    """Who asks, as found out before the view was called."""
    return Caller(g.owner, g.request_id)


def event_slots() -> StreamSlots:
    """The streams of events that this process may hold open."""
    found: StreamSlots = current_app.extensions[f"{EXTENSION}_streams"]
    return found


def is_stopping() -> Callable[[], bool]:
    """Says whether the server is to stop: nothing that waits shall hold it."""
    found: Callable[[], bool] = current_app.config["IS_STOPPING"]
    return found


class SpendRequest(Request):
    """Uploaded files are streamed to the object store's disk instead of the memory or /tmp."""

    def _get_file_stream(self, *_facts: Any, **_more_facts: Any) -> Any:
        return services().objects.receive()


def surround_requests(app: Flask) -> None:
    """Connects all of it to the app; call after the routes are registered."""
    app.request_class = SpendRequest
    app.before_request(_begin)
    app.before_request(_identify)
    app.before_request(_check_body)
    app.after_request(_finish)
    app.teardown_request(lambda _problem: bind_request_id(None))
    app.extensions[f"{EXTENSION}_bodies"] = _documented_bodies(app)
    app.extensions[f"{EXTENSION}_optional_bodies"] = _optional_bodies(app)
    app.config.setdefault("EVENT_STREAMS", EVENT_STREAMS)
    app.config.setdefault("IS_STOPPING", lambda: False)
    app.extensions[f"{EXTENSION}_streams"] = StreamSlots(lambda: app.config["EVENT_STREAMS"])


def _begin() -> None:
    g.started = time.perf_counter()
    g.began_at = time.time()
    g.request_id = accept_request_id(request.headers.get("X-Request-ID"))
    bind_request_id(g.request_id)


def _identify() -> None:
    g.owner = "none"
    if request.method != "OPTIONS" and request.path not in OPEN_TO_ALL:
        g.owner = owner_of(request, services().settings)


def owner_of(incoming: Request, settings: Settings) -> str:
    """Whose jobs a caller sees: `local` from this machine, `anonymous` from elsewhere if that is allowed.

    A caller behind a proxy is from elsewhere, wherever the proxy runs. Raises IdentityRequired.
    """
    proxied = any(header in incoming.headers for header in PROXY_HEADERS)
    if not proxied and _is_loopback(incoming.remote_addr or ""):
        return "local"
    if settings.allow_anonymous:
        return "anonymous"
    raise IdentityRequired(
        "No identity is configured, so only callers on the machine itself are answered, and this request comes from "
        "elsewhere. Call http://127.0.0.1 on that machine, or let the operator set ALLOW_ANONYMOUS=1 to answer everyone."
    )


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def _documented_bodies(app: Flask) -> Mapping[tuple[str, str], str]:
    """(endpoint, method) -> the media type of the body that the documentation promises to take."""
    paths = app.paths  # type: ignore[attr-defined]
    bodies = {}
    for rule in app.url_map.iter_rules():
        described = paths.get(rule.rule.replace("<", "{").replace(">", "}"))
        for method in (rule.methods or set()) if described else ():
            operation = getattr(described, method.lower(), None)
            if operation is not None and operation.requestBody is not None:
                bodies[rule.endpoint, method] = next(iter(operation.requestBody.content))
    return bodies


def _optional_bodies(app: Flask) -> set[str]:
    """The endpoints that the documentation lets be called without their body."""
    paths = app.paths  # type: ignore[attr-defined]
    found = ((rule.endpoint, getattr(paths.get(rule.rule), "post", None)) for rule in app.url_map.iter_rules())
    return {endpoint for endpoint, post in found if post and post.requestBody and post.requestBody.required is False}


def _check_body() -> None:
    """Refuses what the view's model would misread: no body, another type of body, broken JSON, JSON that is a mere value."""
    taken = current_app.extensions[f"{EXTENSION}_bodies"].get((request.endpoint, request.method))
    if taken is None:
        return
    is_json = taken == "application/json"
    if not request.content_length and not request.mimetype:
        if request.endpoint in current_app.extensions[f"{EXTENSION}_optional_bodies"]:
            return
        missing = InvalidRequest if is_json else MissingFile
        raise missing(f"The request has no body; this route takes {taken}. See /docs for an example.")
    if request.mimetype != taken:
        raise UnsupportedMediaType(
            f"The body is {request.mimetype or 'of no stated type'}; this route takes {taken}. "
            f"Set the header Content-Type{': application/json' if is_json else ' by sending a form with a file part'}."
        )
    if is_json:
        request.max_content_length = min(JSON_LIMIT, current_app.config["MAX_CONTENT_LENGTH"])
        if not isinstance(request.get_json(), (dict, list)):
            raise InvalidRequest('The body is a mere JSON value. Send an object, for example {"customer_id": "12345"}.')


def _finish(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.get("request_id", "")
    response.headers["X-Content-Type-Options"] = "nosniff"
    milliseconds = round((time.perf_counter() - g.get("started", time.perf_counter())) * 1000, 2)
    log.info(
        "request answered",
        extra={
            "method": request.method,
            "path": request.path,
            "status": response.status_code,
            "milliseconds": milliseconds,
            "owner": g.get("owner", "none"),
        },
    )
    if response.status_code >= 400 and request.environ.get("wsgi.input_terminated"):
        environ = request.environ
        response.call_on_close(lambda: drain(environ))
    return response


def drain(environ: Mapping[str, Any]) -> None:
    """Reads the rest of a refused body, after the answer was sent, so that the client gets to read the answer.

    A connection that is closed on unread bytes is reset, and the answer is lost with it. Bounded in bytes and time.
    """
    connection = environ.get("gunicorn.socket")
    deadline = time.monotonic() + DRAIN_SECONDS
    left = DRAIN_BYTES
    before = connection.gettimeout() if connection is not None else None
    if connection is not None:
        connection.settimeout(STALLED_SECONDS)
    try:
        while left > 0 and time.monotonic() < deadline and (block := environ["wsgi.input"].read(1 << 16)):
            left -= len(block)
    except (OSError, ParseException):
        log.info("client went away while its refused body was read, or sent what is no body")
    finally:
        if connection is not None:
            connection.settimeout(before)
