"""gunicorn reads this by itself from the working directory; what stands on its command line wins."""

from config import load_settings

_settings = load_settings()

bind = f"0.0.0.0:{_settings.port}"
worker_class = "gthread"
threads = 8
preload_app = False  # models and databases are opened after the fork
timeout = 120
graceful_timeout = 30
keepalive = 15
accesslog = None  # the app writes one JSON line per request itself
loglevel = _settings.log_level.lower()
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"json": {"()": "services.logs.json_handler"}},
    "root": {"level": _settings.log_level, "handlers": ["json"]},
    "loggers": {
        "gunicorn.error": {"level": _settings.log_level, "handlers": ["json"], "propagate": False},
        "gunicorn.access": {"level": _settings.log_level, "handlers": ["json"], "propagate": False},
    },
}
