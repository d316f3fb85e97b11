"""gunicorn's worker, which answers what it refuses itself, before the app sees a request, in the one shape of every error."""

import json
import ssl
from contextlib import suppress
from typing import Any

from gunicorn.http.errors import ExpectationFailed, LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import ThreadWorker

REFUSED: tuple[tuple[type[Exception], str, str], ...] = (
    (
        LimitRequestLine,
        "AddressTooLong",
        "The address of the request is longer than {line:,} bytes, the limit. Send what is long in the body of a POST.",
    ),
    (
        LimitRequestHeaders,
        "HeadersTooLarge",
        "The request has more than {fields:,} headers, or one of more than {field_size:,} bytes. Leave out what is not needed; "
        "cookies are never read.",
    ),
    (
        ExpectationFailed,
        "MalformedRequest",
        "The header Expect asks for something else than 100-continue. Leave it out.",
    ),
)
BROKEN = "What came is not a request of HTTP/1.1 ({why}). Let an HTTP library write it."


class JsonErrorWorker(ThreadWorker):
    """With threads. What is refused here is 400, as everything that is malformed; the log names it and quotes nothing."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answers instead of gunicorn, which would send HTML with a piece of the request in it."""
        if isinstance(exc, ParseException | ssl.SSLError):
            status, (name, message) = "400 Bad Request", self._said_of(exc)
            self.log.warning("request refused: %s (%s)", name, type(exc).__name__)
        else:
            status, name = "500 Internal Server Error", "InternalError"
            message = "The service met an error of its own while it took the request; the log has it."
            self.log.error("internal error before or after the app", exc_info=exc)
        body = json.dumps({"error": name, "message": message})
        head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with suppress(OSError):  # the client has gone
            write_nonblock(client, f"{head}{body}".encode("latin1"))

    def _said_of(self, exc: Exception) -> tuple[str, str]:
        limits = {
            "line": self.cfg.limit_request_line,
            "fields": self.cfg.limit_request_fields,
            "field_size": self.cfg.limit_request_field_size,
        }
        for kind, name, message in REFUSED:
            if isinstance(exc, kind):
                return name, message.format(**limits)
        return "MalformedRequest", BROKEN.format(why=type(exc).__name__)
