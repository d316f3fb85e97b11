"""The web app: wiring only. `gunicorn "app:create_app()"`."""

from typing import Any

from flask.json.provider import DefaultJSONProvider
from flask_cors import CORS
from flask_openapi3 import Info, OpenAPI

from config import VERSION, Settings, load_settings
from routes.bulk_events import events_api
from routes.bulk_jobs import jobs_api
from routes.bulk_prediction import bulk_api
from routes.bulk_results import results_api
from routes.context import EXTENSION, surround_requests
from routes.customer_value import value_api
from routes.docs import register_docs
from routes.errors import register_errors, validation_answer
from routes.health import health_api
from routes.insights import insights_api
from routes.messages import ErrorAnswer
from routes.models import models_api
from routes.prediction import prediction_api
from routes.sums import sums_api
from routes.training import training_api
from services.bootstrap import Services, build_services
from services.logs import configure_logging
from worker.queue import CeleryQueue

FORM_OVERHEAD_BYTES = 64 * 1024
APIS = (
    health_api,
    prediction_api,
    value_api,
    sums_api,
    insights_api,
    models_api,
    bulk_api,
    jobs_api,
    results_api,
    events_api,
    training_api,
)
EXPOSED_HEADERS = [
    "X-Request-ID",
    "Retry-After",
    "Content-Disposition",
    "Content-Range",
    "Accept-Ranges",
    "ETag",
    "X-Partial-Rows",
    "Idempotency-Replayed",
]
LOCAL_ORIGINS = [r"^http://(localhost|127\.0\.0\.1)(:\d+)?$"]
DESCRIPTION = (
    "What each customer will spend in the next 30 days: one at a time, or for a file of customers as a job. "
    'Every error has the same shape: `{"error": "UnknownCustomer", "message": "what is wrong, and the way out"}`.'
)


class StrictJson(DefaultJSONProvider):
    """JSON as the standard has it: no NaN, no nesting without end, no halves of characters; keys in the order they were written."""

    sort_keys = False

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """The value. Raises ValueError for anything that is not JSON."""
        try:
            value = super().loads(s, parse_constant=_refuse, **kwargs)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if (b"\\u" if isinstance(s, bytes) else "\\u") in s:  # type: ignore[operator]
            self.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
        return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def create_app(settings: Settings | None = None, services: Services | None = None) -> OpenAPI:
    """The app; without arguments from the environment. Opens nothing: connections and models wait for their first use."""
    settings = settings or (services.settings if services else load_settings())
    configure_logging(settings.log_level)
    app = OpenAPI(
        __name__,
        info=Info(title="Customer spend API", version=VERSION, description=DESCRIPTION),
        validation_error_status=400,
        validation_error_model=ErrorAnswer,
        validation_error_callback=validation_answer,
        security_schemes={},
        doc_ui=False,
        static_folder=None,
    )
    app.json = StrictJson(app)
    app.url_map.strict_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = settings.max_upload_bytes + FORM_OVERHEAD_BYTES
    app.extensions[EXTENSION] = services or build_services(settings, CeleryQueue(settings))
    for api in APIS:
        app.register_api(api)
    register_docs(app)
    register_errors(app)
    surround_requests(app)
    origins = list(settings.cors_origins) or ([] if settings.is_production else LOCAL_ORIGINS)
    if origins:
        CORS(app, origins=origins, expose_headers=EXPOSED_HEADERS)
    return app
