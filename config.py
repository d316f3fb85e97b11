"""The settings, and the only reader of the environment and of `.env`. The environment wins over the file."""

import ipaddress
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import dotenv_values

VERSION = "0.1.0"
ROOT = Path(__file__).resolve().parent
ENVIRONMENTS = ("production", "development", "testing")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
PLACEHOLDER = re.compile(
    r"^(your[_\-\s].*|<.*>|change[_\-]?me.*|replace[_\-]?me.*|x{3,}|todo|.*\.\.\.)$", re.IGNORECASE
)
CREDENTIALS = ("SUPABASE_URL", "SUPABASE_KEY")
"""Variables that people copy from guides of this kind with their placeholder; refused as such wherever they are set."""

BARE_VARIABLES = frozenset(
    ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "PYTHONHOME", "TZ", "VIRTUAL_ENV")
)


class BadConfiguration(Exception):
    """One or more variables cannot be used; the message has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Settings:
    """Everything that can be set; each field is the variable of the same name in capitals."""

    flask_env: str
    port: int
    cors_origins: tuple[str, ...]
    allow_anonymous: bool
    log_level: str
    data_dir: Path
    models_dir: Path
    var_dir: Path
    objects_dir: Path
    redis_url: str
    database_url: str
    single_host: bool
    max_upload_mb: int
    max_rows: int
    max_columns: int
    max_jobs_per_caller: int
    rows_per_chunk: int
    retention_days: float
    webhook_secret: str = field(repr=False)
    webhook_hosts: tuple[str, ...]
    lease_seconds: float
    watchdog_seconds: float
    max_attempts: int
    idle_worker_seconds: float
    training_memory_mb: int
    models_kept: int
    groq_api_key: str = field(repr=False)
    llm_api_key: str = field(repr=False)
    llm_base_url: str
    llm_model: str
    llm_budget_seconds: float
    llm_cache_seconds: float

    @property
    def is_production(self) -> bool:
        """Whether nothing may be assumed of who calls."""
        return self.flask_env == "production"

    @property
    def max_upload_bytes(self) -> int:
        """The largest file that is taken."""
        return self.max_upload_mb * 1024 * 1024


VARIABLES = tuple(field.name.upper() for field in fields(Settings))


class _Reader:
    """Reads variables one by one and collects what is wrong with them, so that all of it is said at once."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []

    def text(self, name: str, default: str) -> str:
        return self._environ.get(name, "").strip() or default

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.text(name, "").split(",") if part.strip())

    def number(self, name: str, default: float, low: float, high: float) -> float:
        text = self.text(name, "")
        try:
            value = float(text) if text else default
        except ValueError:
            value = float("nan")
        if low <= value <= high:
            return value
        self.problems.append(f"{name} is {text!r}; it must be a number from {low:g} to {high:g}.")
        return default

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self.number(name, default, low, high)
        if value == int(value):
            return int(value)
        self.problems.append(f"{name} is {value!r}; it must be a whole number.")
        return default

    def flag(self, name: str) -> bool:
        text = self.text(name, "0").lower()
        if text not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
            self.problems.append(f"{name} is {text!r}; write 1 or 0.")
        return text in ("1", "true", "yes", "on")

    def choice(self, name: str, default: str, choices: tuple[str, ...], shape: Callable[[str], str]) -> str:
        text = shape(self.text(name, default))
        if text in choices:
            return text
        self.problems.append(f"{name} is {text!r}; it must be one of {', '.join(choices)}.")
        return default

    def folder(self, name: str, default: str) -> Path:
        path = (ROOT / Path(self.text(name, default)).expanduser()).resolve()
        if path.exists() and not path.is_dir():
            self.problems.append(f"{name} is {path}, which is a file; it must be a folder.")
        return path


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings from `environ` alone, or (None) from the process environment and `.env` beside this file.

    An empty value counts as not set. Raises BadConfiguration naming every variable that cannot be used.
    """
    given, named = (environ, set(environ)) if environ is not None else _read_environment()
    reader = _Reader(given)
    reader.problems += _placeholders(given, named)
    var_dir = reader.folder("VAR_DIR", "var")
    settings = Settings(
        flask_env=reader.choice("FLASK_ENV", "production", ENVIRONMENTS, str.lower),
        port=reader.integer("PORT", 5000, 1, 65535),
        cors_origins=reader.texts("CORS_ORIGINS"),
        allow_anonymous=reader.flag("ALLOW_ANONYMOUS"),
        log_level=reader.choice("LOG_LEVEL", "INFO", LOG_LEVELS, str.upper),
        data_dir=reader.folder("DATA_DIR", "pymind_dataset"),
        models_dir=reader.folder("MODELS_DIR", "models"),
        var_dir=var_dir,
        objects_dir=reader.folder("OBJECTS_DIR", str(var_dir / "objects")),
        redis_url=reader.text("REDIS_URL", "redis://127.0.0.1:6379/0"),
        database_url=_database_url(reader.text("DATABASE_URL", f"sqlite:///{var_dir / 'jobs.sqlite3'}")),
        single_host=reader.flag("SINGLE_HOST"),
        max_upload_mb=reader.integer("MAX_UPLOAD_MB", 200, 1, 100_000),
        max_rows=reader.integer("MAX_ROWS", 5_000_000, 1, 1_000_000_000),
        max_columns=reader.integer("MAX_COLUMNS", 1000, 1, 16_000),
        max_jobs_per_caller=reader.integer("MAX_JOBS_PER_CALLER", 100, 1, 1_000_000),
        rows_per_chunk=reader.integer("ROWS_PER_CHUNK", 50_000, 1, 1_000_000),
        retention_days=reader.number("RETENTION_DAYS", 30, 0, 36_500),
        webhook_secret=reader.text("WEBHOOK_SECRET", ""),
        webhook_hosts=reader.texts("WEBHOOK_HOSTS"),
        lease_seconds=reader.number("LEASE_SECONDS", 15, 1, 3600),
        watchdog_seconds=reader.number("WATCHDOG_SECONDS", 3, 0.1, 600),
        max_attempts=reader.integer("MAX_ATTEMPTS", 3, 1, 100),
        idle_worker_seconds=reader.number("IDLE_WORKER_SECONDS", 60, 1, 86_400),
        training_memory_mb=reader.integer("TRAINING_MEMORY_MB", 4096, 512, 1_000_000),
        models_kept=reader.integer("MODELS_KEPT", 3, 0, 1000),
        groq_api_key=reader.text("GROQ_API_KEY", ""),
        llm_api_key=reader.text("LLM_API_KEY", ""),
        llm_base_url=reader.text("LLM_BASE_URL", ""),
        llm_model=reader.text("LLM_MODEL", ""),
        llm_budget_seconds=reader.number("LLM_BUDGET_SECONDS", 4, 0.1, 60),
        llm_cache_seconds=reader.number("LLM_CACHE_SECONDS", 3600, 0, 604_800),
    )
    problems = reader.problems or _contradictions(settings)
    if problems:
        raise BadConfiguration(problems)
    return settings


def bare_environment() -> dict[str, str]:
    """For a command of ours that is told the rest by its arguments: where programs and libraries are, and no secret."""
    return {name: value for name, value in os.environ.items() if name in BARE_VARIABLES}


def redis_is_given() -> bool:
    """Whether REDIS_URL is set, in the environment or `.env`; if not, run.py starts a server of its own."""
    environment, _named = _read_environment()
    return bool(environment.get("REDIS_URL", "").strip())


def _read_environment() -> tuple[dict[str, str], set[str]]:
    written = {name: value or "" for name, value in dotenv_values(ROOT / ".env").items()}
    return {**written, **os.environ}, set(written) | set(VARIABLES) | set(CREDENTIALS)


def _placeholders(environ: Mapping[str, str], names: set[str]) -> list[str]:
    return [
        f"{name} still is the placeholder {environ[name].strip()!r}: give its real value, or delete the line to do without."
        for name in sorted(names)
        if PLACEHOLDER.match(environ.get(name, "").strip())
    ]


def _database_url(text: str) -> str:
    """Postgres under the driver that is installed, whichever of its usual spellings was given."""
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", text)


def _contradictions(settings: Settings) -> list[str]:
    unreadable = [
        f"{name} cannot be read as a URL. Write scheme://user:password@host:port/name; in a password / is %2F, @ is %40, "
        ": is %3A, # is %23 and [ is %5B."
        for name, url in (
            ("REDIS_URL", settings.redis_url),
            ("DATABASE_URL", settings.database_url),
            ("LLM_BASE_URL", settings.llm_base_url),
        )
        if not _is_readable(url)
    ]
    if unreadable:
        return unreadable
    problems = [
        f"CORS_ORIGINS has {origin!r}; an origin is scheme://host[:port] without a path, for example "
        "https://shop.example.com; several are separated by commas."
        for origin in settings.cors_origins
        if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin)
    ]
    redis = urlsplit(settings.redis_url)
    if redis.scheme not in ("redis", "rediss"):
        problems.append("REDIS_URL must begin with redis:// or rediss://, for example redis://127.0.0.1:6379/0.")
    elif not re.fullmatch(r"(/[0-9]*)?", redis.path):
        problems.append("REDIS_URL ends in no number; behind the host comes the number of a database, for example /0.")
    scheme = urlsplit(settings.database_url).scheme
    if scheme not in ("sqlite", "postgresql+psycopg"):
        problems.append(
            f"DATABASE_URL begins with {scheme!r}; it must be sqlite:///path/to/file or postgresql://user:password@host/name."
        )
    if scheme == "sqlite" and not re.match(r"sqlite:///(?!$|\?|:memory:)", settings.database_url):
        problems.append(
            "DATABASE_URL names no file: web and workers are processes, a database in memory is not shared. "
            "Write sqlite:///path/to/file, with four slashes for a path from the root."
        )
    if scheme == "sqlite" and not settings.single_host and not _is_this_host(settings.redis_url):
        problems.append(
            "REDIS_URL points to another host while DATABASE_URL is a SQLite file: workers on other hosts would not see "
            "the jobs. Set DATABASE_URL to a Postgres, or SINGLE_HOST=1 if web and workers all run on this one machine."
        )
    if settings.watchdog_seconds > settings.lease_seconds:
        problems.append(
            f"WATCHDOG_SECONDS ({settings.watchdog_seconds:g}) is longer than LEASE_SECONDS ({settings.lease_seconds:g}); "
            "a lost job would wait for nothing. Make it shorter."
        )
    return problems + _contradictions_of_language_model(settings)


def _contradictions_of_language_model(settings: Settings) -> list[str]:
    if not settings.llm_base_url:
        if not settings.llm_api_key:
            return []
        return [
            "LLM_API_KEY is set without LLM_BASE_URL: name the endpoint that it is for; Groq's key is GROQ_API_KEY."
        ]
    problems = []
    parts = urlsplit(settings.llm_base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        problems.append(
            "LLM_BASE_URL must be http:// or https://, a host and a path, without a user name, ? or #; for example "
            "http://127.0.0.1:11434/v1. The key is LLM_API_KEY."
        )
    if not settings.llm_model:
        problems.append(
            "LLM_BASE_URL is set without LLM_MODEL: endpoints want to be told which of their models is asked, for example "
            "LLM_MODEL=llama3.2."
        )
    return problems


def _is_readable(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:  # its message may quote a part of the password
        return False


def _is_this_host(url: str) -> bool:
    host = urlsplit(url).hostname
    if host is None or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Config:
    """For people: `python -c "from config import Config; Config.validate()"`."""

    @staticmethod
    def validate() -> Settings:
        """The settings in force; says what is wrong in words and exits with 1 if something is."""
        try:
            settings = load_settings()
        except BadConfiguration as problem:
            raise SystemExit(f"The configuration cannot be used:\n{problem}") from None
        sys.stdout.write(
            f"The configuration is fine: {settings.flask_env}, port {settings.port}, models in {settings.models_dir}.\n"
        )
        return settings
