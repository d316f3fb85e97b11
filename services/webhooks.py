"""Webhooks: the end of a job is told to an address of the caller's, signed, as often as it takes within reason.

The work is one step of its job, postponed as often as an attempt fails, so that the job table says how it went. Delivery is at
least once: a receiver that answers too late, or whose answer is lost with a worker, hears of the same end again. It drops what
it has seen by the header X-Webhook-Id, and compares X-Webhook-Signature with its own HMAC-SHA256(secret, timestamp + "." + body)
before it believes anything.
"""

import hashlib
import hmac
import http.client
import json
import logging
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from config import VERSION, Settings
from services.errors import WebhookRefused
from services.job_progress import moment_text, percentage_of
from services.job_table import COMPLETED, FAILED, Job, Lease, Step
from services.step_store import NOTIFY_ATTEMPTS, NOTIFY_WAITS_SECONDS, StepStore

log = logging.getLogger(__name__)

URL_LENGTH = 2000
CONNECT_SECONDS = 5.0
DELIVERY_SECONDS = 10.0
JITTER = 0.2
"""Each wait is up to so much of itself shorter or longer, so that many deliveries that failed at once do not return at once."""
GONE = 410
VISIBLE_ASCII = re.compile(r"[!-~]+")
DEFAULT_PORTS = {"http": 80, "https": 443}


class NotDelivered(Exception):
    """The receiver did not answer, or with something other than 2xx; `status` is None where there was no answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class _Address:
    """Where to connect to, taken apart once, so that what is checked and what is called cannot differ."""

    scheme: str
    host: str
    port: int
    target: str


class Webhooks:
    """Says which addresses may be called, and calls them."""

    def __init__(self, settings: Settings, steps: StepStore) -> None:
        self._secret = settings.webhook_secret
        self._hosts = frozenset(host.lower() for host in settings.webhook_hosts)
        self._steps = steps

    def check(self, url: str) -> None:
        """Raises WebhookRefused unless the address is one that may be called."""
        self._address(url)

    def deliver(self, job: Job, step: Step, lease: Lease) -> None:
        """One attempt: delivered, put off, or given up, which the step then says. Raises LeaseLost."""
        facts = {"job_id": job.job_id, "attempt": step.attempts}
        try:
            status = self._post(job)
        except (NotDelivered, WebhookRefused) as problem:
            self._after_a_failed_attempt(step, lease, problem, facts)
        else:
            self._steps.finish(lease)
            log.info("webhook delivered", extra={**facts, "http_status": status})

    def _after_a_failed_attempt(self, step: Step, lease: Lease, problem: Exception, facts: Mapping[str, Any]) -> None:
        name, message = type(problem).__name__, str(problem)
        is_final = isinstance(problem, WebhookRefused) or getattr(problem, "status", None) == GONE
        if is_final or step.attempts >= NOTIFY_ATTEMPTS:
            self._steps.finish(lease, name, message)
            log.warning("webhook given up", extra={**facts, "error": name, "reason": message})
            return
        wait = NOTIFY_WAITS_SECONDS[max(step.attempts, 1) - 1] * random.uniform(1 - JITTER, 1 + JITTER)
        self._steps.postpone(lease, wait, name, message)
        log.warning("webhook put off", extra={**facts, "error": name, "reason": message, "wait_seconds": round(wait)})

    def _post(self, job: Job) -> int:
        address = self._address(str(job.parameters["webhook_url"]))  # again: the settings may have changed since
        body = json.dumps(_content(job)).encode()
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"customer-spend-api/{VERSION}",
            "X-Webhook-Id": _id_of_end(job),
            "X-Webhook-Timestamp": timestamp,
            "X-Webhook-Signature": f"sha256={_signature(self._secret, timestamp, body)}",
            "Connection": "close",
        }
        status = _Call(address, body, headers).status_within(DELIVERY_SECONDS)
        if not 200 <= status < 300:
            raise NotDelivered(f"The receiver answered {status}; 2xx says that it has taken the message.", status)
        return status

    def _address(self, url: str) -> _Address:
        if not self._secret:
            raise WebhookRefused(
                "webhook_url was given, but this service has no WEBHOOK_SECRET to sign with. Leave webhook_url away and "
                "ask GET /bulk/status, or have the operator set WEBHOOK_SECRET and WEBHOOK_HOSTS."
            )
        if len(url) > URL_LENGTH:
            raise WebhookRefused(f"webhook_url has {len(url):,} characters; at most {URL_LENGTH:,} are taken.")
        parts, port = _taken_apart(url)
        host = parts.hostname or ""
        if not self._may_be_called(host, port):
            raise WebhookRefused(
                f"webhook_url names the host {host!r} (port {port}), which is not among those that this service may call. "
                "Have the operator add it to WEBHOOK_HOSTS, or leave webhook_url away and ask GET /bulk/status."
            )
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return _Address(parts.scheme, host, port, target)

    def _may_be_called(self, host: str, port: int) -> bool:
        """A host alone in the settings means all of its ports, host:port this port."""
        written = f"[{host}]" if ":" in host else host
        return not self._hosts.isdisjoint((host, written, f"{written}:{port}"))


def _taken_apart(url: str) -> tuple[SplitResult, int]:
    """The parts of the URL, and its port. Raises WebhookRefused for one that is not plainly http(s)://host[:port]/..."""
    rule = "It must be http:// or https://, a host, and a path, in ASCII, without a user name or password"
    try:
        parts = urlsplit(url)
        port = DEFAULT_PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    except ValueError:
        raise WebhookRefused(f"webhook_url cannot be read as a URL. {rule}.") from None
    if not VISIBLE_ASCII.fullmatch(url) or parts.scheme not in DEFAULT_PORTS or not parts.hostname or port == 0:
        raise WebhookRefused(f"webhook_url is not a URL that can be called. {rule}.")
    if parts.username is not None or parts.password is not None:
        raise WebhookRefused(f"webhook_url has a user name or password in it. {rule}: the signature says who calls.")
    return parts, port


def _content(job: Job) -> dict[str, Any]:
    """What the receiver is told, in the words of GET /bulk/status."""
    content: dict[str, Any] = {
        "job_id": job.job_id,
        "status": job.status,
        "progress": {
            "total": job.rows_total,
            "processed": job.rows_processed,
            "successful": job.rows_successful,
            "failed": job.rows_failed,
            "percentage": percentage_of(job),
        },
        "completed_at": None if job.completed_at is None else moment_text(job.completed_at),
    }
    if job.status == COMPLETED:
        content |= {"statistics": job.statistics, "download_url": f"/bulk/download/{job.job_id}"}
    if job.status == FAILED:
        content |= {"error": job.error_name, "message": job.error_message}
    return content


def _id_of_end(job: Job) -> str:
    """The same for every attempt to tell of one end; a job that was retried ends again, with another id."""
    return f"{job.job_id}:{job.status}:{round(1000 * (job.completed_at or 0))}"


def _signature(secret: str, timestamp: str, body: bytes) -> str:
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


class _Call:
    """One POST, in a thread of its own: no timeout of a socket bounds the looking up of a name, or an answer that drips in."""

    def __init__(self, address: _Address, body: bytes, headers: Mapping[str, str]) -> None:
        self._address = address
        self._body = body
        self._headers = headers
        self._connection = _connection(address)
        self._outcome: int | Exception | None = None

    def status_within(self, seconds: float) -> int:
        """The status of the answer, whose body is not read and whose redirects are not followed. Raises NotDelivered."""
        thread = threading.Thread(target=self._run, args=(seconds,), name="webhook", daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            self._break_off()
            raise NotDelivered(f"The receiver did not answer within {seconds:g} s.")
        if isinstance(self._outcome, int):
            return self._outcome
        raise NotDelivered(f"The receiver could not be reached, or broke off ({type(self._outcome).__name__}).")

    def _run(self, seconds: float) -> None:
        try:
            self._connection.connect()
            self._connection.sock.settimeout(2 * seconds)  # whoever waits breaks off before, and says so
            self._connection.request("POST", self._address.target, self._body, dict(self._headers))
            self._outcome = self._connection.getresponse().status
        except (OSError, http.client.HTTPException, ValueError) as problem:  # ValueError: a name that is none in DNS
            self._outcome = problem
        finally:
            self._connection.close()

    def _break_off(self) -> None:
        connected = self._connection.sock
        with suppress(OSError):
            if connected is not None:
                connected.shutdown(socket.SHUT_RDWR)


def _connection(address: _Address) -> http.client.HTTPConnection:
    if address.scheme == "http":
        return http.client.HTTPConnection(address.host, address.port, timeout=CONNECT_SECONDS)
    trusted = ssl.create_default_context()
    return http.client.HTTPSConnection(address.host, address.port, timeout=CONNECT_SECONDS, context=trusted)
