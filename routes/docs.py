"""The documentation: the OpenAPI document and a page that shows it, without a single file from another host."""

from importlib.resources import files
from typing import Any

from flask import Flask, Response, current_app, send_from_directory

from routes.context import services

STAND_INS = ("12345", "67890")
"""Customer ids in the examples of the shapes. The document that is served has ids of customers in their place, where there
are any, so that an example works when it is pasted."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Customer spend API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/assets/css/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/assets/js/swagger-ui-bundle.js"></script>
<script>
window.onload = () => SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis], layout: "BaseLayout",
});
</script>
</body>
</html>
"""


def register_docs(app: Flask) -> None:
    """Adds /openapi.json, /docs and the files of the page."""
    app.add_url_rule("/openapi.json", "openapi", _openapi)
    app.add_url_rule("/docs", "docs", _page)
    app.add_url_rule("/docs/assets/<path:name>", "docs_assets", _asset)


def _openapi() -> Response:
    document = dict(current_app.api_doc)  # type: ignore[attr-defined]
    document["components"] = {name: part for name, part in document["components"].items() if part}  # else: "Authorize"
    known = dict(zip(STAND_INS, services().bulk.sample_ids(), strict=False))
    return current_app.json.response(_with_known_ids(document, known))  # type: ignore[return-value]


def _with_known_ids(part: Any, known: dict[str, str], in_example: bool = False) -> Any:
    if isinstance(part, dict):
        return {
            name: _with_known_ids(inner, known, in_example or name in ("example", "examples"))
            for name, inner in part.items()
        }
    if isinstance(part, list):
        return [_with_known_ids(inner, known, in_example) for inner in part]
    return known.get(part, part) if in_example and isinstance(part, str) else part


def _page() -> Response:
    return current_app.response_class(PAGE, mimetype="text/html")


def _asset(name: str) -> Response:
    return send_from_directory(str(files("flask_openapi3_swagger") / "templates" / "swagger"), name)
