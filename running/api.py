"""The few questions that the starter asks the running web part, over loopback and past any proxy."""

import json
import urllib.error
import urllib.request
from typing import Any

ANSWER_SECONDS = 5.0

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str) -> bytes | None:
    """The body of a 200 answer; None for any other answer, or none."""
    try:
        with _opener.open(url, timeout=ANSWER_SECONDS) as answer:
            return bytes(answer.read()) if answer.status == 200 else None
    except (urllib.error.URLError, OSError):
        return None


def get_json(url: str) -> dict[str, Any]:
    """The JSON object of an answer of any status; empty when there is none."""
    try:
        with _opener.open(url, timeout=ANSWER_SECONDS) as answer:
            body = answer.read()
    except urllib.error.HTTPError as answer:
        body = answer.read()
    except (urllib.error.URLError, OSError):
        return {}
    try:
        parsed = json.loads(body)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
