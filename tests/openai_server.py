"""An OpenAI-compatible server in a process of its own, which answers well or fails in a way that it is told over HTTP.

`python -m tests.openai_server [port]` says its address and serves until its standard input ends. POST /v1/chat/completions
is asked as OpenAI's; PUT /mode {"mode": ..., "seconds": ..., "times": ...} says how it answers from now on, GET /received lists
the requests since the last PUT /mode.
"""

import gzip
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"
PROJECT = Path(__file__).resolve().parent.parent
ANSWERS = "answers"
INVENTED = "A discount of 4711.99 would bring this customer back."
HUGE_BYTES = 32 * 1024 * 1024
DRIP_SECONDS = 0.02
LONGEST_SECONDS = 60.0
"""No answer takes longer, so that threads end."""


class _Behaviour:
    """How it answers now, and what it was asked since it was told so."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.told: dict[str, Any] = {"mode": ANSWERS}
        self.received: list[dict[str, Any]] = []
        self.broken_off = 0

    def becomes(self, told: dict[str, Any]) -> None:
        """It answers so from now on; what went before is forgotten."""
        with self.lock:
            self.told, self.received, self.broken_off = told, [], 0

    def hung_up(self, told: dict[str, Any]) -> None:
        """Somebody who was answered so has; of those before it does not count."""
        with self.lock:
            self.broken_off += told is self.told

    def next(self, request: dict[str, Any]) -> dict[str, Any]:
        """What to do with this request; after `times` requests it answers well."""
        with self.lock:
            self.received.append(request)
            is_over = len(self.received) > self.told.get("times", sys.maxsize)
            return {"mode": ANSWERS} if is_over else self.told


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behaviour: _Behaviour

    def do_PUT(self) -> None:
        self.behaviour.becomes(self._json())
        self._send(200, b"{}")

    def do_GET(self) -> None:
        with self.behaviour.lock:
            received = {"received": self.behaviour.received, "broken_off": self.behaviour.broken_off}
            self._send(200, json.dumps(received).encode())

    def do_POST(self) -> None:
        asked = self._json()
        told = self.behaviour.next({"path": self.path, "headers": dict(self.headers), "body": asked})
        self.close_connection = True
        try:
            getattr(self, f"_{told['mode']}")(asked, told)
        except OSError:
            self.behaviour.hung_up(told)

    def _answers(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        self._send(200, completion(told.get("content") or wording(asked)))

    def _slow(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        time.sleep(told["seconds"])
        self._answers(asked, told)

    def _fenced(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        self._send(200, completion(f"<think>{{hm}}</think>Here it is:\n```json\n{wording(asked)}\n```"))

    def _malformed(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        self._send(200, completion('{"insight": "This customer", "recommended_'))

    def _broken_body(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        self._send(200, completion(wording(asked))[:-20])

    def _invents(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        self._send(200, completion(json.dumps({**json.loads(wording(asked)), "recommended_action": INVENTED})))

    def _rate_limited(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        wait = {"Retry-After": str(told["seconds"])} if "seconds" in told else {}
        self._send(429, b'{"error": {"message": "Rate limit reached"}}', **wait)

    def _error(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        self._send(told.get("status", 500), b'{"error": {"message": "Something went wrong"}}')

    def _without_options(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        if "response_format" in asked:
            self._send(400, b'{"error": {"message": "response_format is not supported"}}')
        else:
            self._answers(asked, told)

    def _redirects(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        self._send(307, b"", Location=f"http://{self.headers['Host']}/v1/chat/completions")

    def _wrong_type(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        self._send(200, b"<html><body>Welcome to the hotel's network</body></html>", **{"Content-Type": "text/html"})

    def _huge(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        self._head(HUGE_BYTES)
        part = b" " * 65536
        for _ in range(HUGE_BYTES // len(part)):
            self.wfile.write(part)

    def _endless_error(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        self._send(500, b"", **{"Content-Length": str(10**15)})
        end = time.monotonic() + LONGEST_SECONDS
        while time.monotonic() < end:
            self.wfile.write(b" " * 65536)

    def _compressed(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        self._send(200, gzip.compress(completion(wording(asked))), **{"Content-Encoding": "gzip"})

    def _drops(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._end()

    def _drops_halfway(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        answer = completion(wording(asked))
        self._head(len(answer))
        self.wfile.write(answer[: len(answer) // 2])
        self._end()

    def _end(self) -> None:
        self.rfile.close()
        self.wfile.close()
        self.connection.close()

    def _hangs(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        self.connection.settimeout(LONGEST_SECONDS)
        if not self.connection.recv(1):
            raise ConnectionResetError

    def _drips(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        self._head(1_000_000)
        self._drip(b" ")

    def _drips_head(self, asked: dict[str, Any], told: dict[str, Any]) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        self._drip(b"x")

    def _drip(self, byte: bytes) -> None:
        end = time.monotonic() + LONGEST_SECONDS
        while time.monotonic() < end:
            self.wfile.write(byte)
            time.sleep(DRIP_SECONDS)

    def _json(self) -> dict[str, Any]:
        return dict(json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0)))))

    def _head(self, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.flush()

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


MODES = tuple(
    name[1:]
    for name in vars(_Handler)
    if re.fullmatch(r"_[a-z]\w*[a-z]", name) and name not in ("_json", "_head", "_send", "_end", "_drip")
)


def wording(asked: dict[str, Any]) -> str:
    """What a good model answers: a text about figures it was given."""
    facts = json.loads(asked["messages"][-1]["content"])["facts"]
    figures = {name: fact for name, fact in facts.items() if isinstance(fact, int | float)}
    said = "; ".join(f"{name.replace('_30d', '').replace('_', ' ')}: {fact:,}" for name, fact in figures.items())
    return json.dumps({"insight": f"The figures say, {said}.", "recommended_action": "Send a personal offer."})


def completion(content: str) -> bytes:
    """The body of a completion whose text is `content`."""
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "stub",
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}},
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
    ).encode()


class OpenAIServer:
    """The process, and what to tell it. A context manager: ended at the end."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.openai_server"],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._root = self._process.stdout.readline().strip()
        self.url = f"{self._root}/v1"

    def does(self, mode: str, **how: Any) -> None:
        """It answers so from now on, and has received nothing yet."""
        body = json.dumps({"mode": mode, **how}).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self._root}/mode", body, method="PUT")):
            pass

    def received(self) -> list[dict[str, Any]]:
        """The requests since it was told how to answer: path, headers, body."""
        return list(self._said()["received"])

    def broken_off(self) -> int:
        """How many of those whom it made wait have hung up."""
        return int(self._said()["broken_off"])

    def _said(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._root}/received") as answer:
            return dict(json.loads(answer.read()))

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def __enter__(self) -> "OpenAIServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Those who hang up are part of the play."""


def serve(port: int) -> None:
    """Until standard input ends."""
    handler = type("Handler", (_Handler,), {"behaviour": _Behaviour()})
    server = _Server((LOOPBACK, port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"http://{LOOPBACK}:{server.server_address[1]}\n")
    sys.stdout.flush()
    with suppress(KeyboardInterrupt):
        sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
