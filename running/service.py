"""`python run.py`: tables and a model if there are none, then queue, web and worker, until somebody asks for the end."""

import argparse
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from config import BadConfiguration, Settings, load_settings, redis_is_given
from running import api
from running.embedded_redis import EmbeddedRedis, NoRedisServer, prepare_redis
from running.lifeline import Lifeline
from running.lock import AlreadyRunning, RunLock
from running.ports import LOOPBACK, is_taken
from running.preparing import Places, PreparingFailed, Stopped, has_model, has_tables, make_sample_tables, train_model
from running.supervisor import Part, PartDidNotStart, Supervisor
from services.logs import configure_logging

PROJECT = Path(__file__).resolve().parent.parent
WEB_PROCESSES = 2
WORKERS = (("worker", "bulk", 2), ("finisher", "finishing", 1), ("trainer", "training", 1))
"""Name, queues, processes. What finishes has a process of its own: a long conversion, or the receiver of a webhook that does
not answer, keeps nobody's file from being scored. And so has a training, which takes minutes."""
WORKER_STOP_SECONDS = 8.0
"""A worker ends by itself within seven, and then has given back what it held."""
READY_SECONDS = 60.0
ALL_WELL_SECONDS = 20.0
LOOK_EVERY_SECONDS = 0.5

log = logging.getLogger(__name__)


class CannotRun(Exception):
    """Something stands in the way that the person at the keyboard can change."""


def run(arguments: Sequence[str]) -> int:
    """Runs the service until Ctrl-C or SIGTERM; returns the exit status."""
    options = _options(arguments)
    try:
        settings = load_settings()
        configure_logging(settings.log_level)
        with _asked_to_end() as stop, _alone(settings.var_dir, "train" if options.train else "run") as lifeline:
            if options.train:
                _train(settings, "full", lifeline, stop)
            elif options.prepare:
                _prepare(settings, lifeline, stop)
            else:
                _check_port(options.host, settings.port)
                _prepare(settings, lifeline, stop)
                _serve(settings, options.host, lifeline, stop)
    except Stopped:
        say("Stopped.")
    except (CannotRun, BadConfiguration, NoRedisServer, PreparingFailed, PartDidNotStart) as reason:
        sys.stderr.write(f"run.py: {reason}\n")
        return 1
    return 0


def say(text: str) -> None:
    """To the person at the keyboard; the parts log JSON lines beside it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="run.py",
        description="Makes sample tables and a model if there are none, then runs the service: queue, API and worker. "
        "Ctrl-C ends all of it. Settings come from the environment or .env (see .env.example).",
    )
    parser.add_argument("--port", help="where the API listens (default: PORT, or 5000)")
    parser.add_argument(
        "--host", default=LOOPBACK, help=f"address to listen on (default: {LOOPBACK}, this machine only; 0.0.0.0 = all)"
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument(
        "--prepare", action="store_true", help="only make tables and a model where there are none, then end"
    )
    only.add_argument(
        "--train", action="store_true", help="only learn from the tables anew with the full profile, then end"
    )
    options = parser.parse_args(arguments)
    if options.port is not None:
        os.environ["PORT"] = options.port  # so that load_settings judges it, and every part sees the same
    return options


@contextmanager
def _asked_to_end() -> Iterator[Event]:
    """An event that Ctrl-C, SIGTERM and a closed terminal set."""
    stop = Event()
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {name: signal.signal(name, lambda *_: stop.set()) for name in names}
    try:
        yield stop
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@contextmanager
def _alone(var_dir: Path, purpose: str) -> Iterator[Lifeline]:
    """The one run of this folder, and the lifeline of its parts, which keeps the folder until the last one is gone."""
    lock = RunLock(var_dir / f"{purpose}.lock")
    try:
        lock.take()
    except AlreadyRunning as other:
        raise CannotRun(
            f"it runs already in {var_dir} (process {other}). Use that one, end it with Ctrl-C or `kill {other}`, "
            "or give this one its own place: VAR_DIR=var2 PORT=5001 python run.py"
        ) from None
    lifeline = Lifeline(keep_open=(lock.descriptor,))
    try:
        yield lifeline
    finally:
        lifeline.close()
        lock.release()


def _check_port(host: str, port: int) -> None:
    if is_taken(host, port):
        raise CannotRun(
            f"port {port} is in use by another program. Take another one: PORT={port + 1} python run.py"
            + (" (on a Mac, AirPlay Receiver holds 5000; it can be turned off in the settings)" * (port == 5000))
        )


def _prepare(settings: Settings, lifeline: Lifeline, stop: Event) -> None:
    """Tables and a model, where there are none."""
    if not has_model(settings.models_dir):
        say(f"No model in {settings.models_dir}.")
        _train(settings, "quick", lifeline, stop)


def _train(settings: Settings, profile: str, lifeline: Lifeline, stop: Event) -> None:
    """A model from the tables; from sample tables where the folder of tables is empty."""
    if not settings.data_dir.is_dir():
        raise CannotRun(
            f"the folder of tables, {settings.data_dir}, does not exist. Correct DATA_DIR, or make the folder: "
            "an empty one gets sample tables."
        )
    if not has_tables(settings.data_dir):
        say(f"No tables in {settings.data_dir}: writing sample tables of a shop that does not exist.")
        make_sample_tables(settings.data_dir, settings.var_dir / "sample_truth", PROJECT, lifeline, stop)
    say(f"Learning from the tables in {settings.data_dir} ({profile} profile).")
    places = Places(
        settings.data_dir, settings.models_dir, settings.var_dir / "pipeline", settings.var_dir / "sample_truth"
    )
    train_model(places, profile, PROJECT, lifeline, stop)


def _serve(settings: Settings, host: str, lifeline: Lifeline, stop: Event) -> None:
    """Queue, web, workers; returns when all of them are down again."""
    parts: list[Part] = []
    redis_url = settings.redis_url
    if not redis_is_given():
        redis = prepare_redis(settings.var_dir / "redis")
        redis_url = redis.url
        parts.append(_redis_part(redis))
    parts.append(_web_part(settings, host, redis_url))
    parts += [_worker_part(name, queues, processes, redis_url) for name, queues, processes in WORKERS]
    supervisor = Supervisor(parts, lifeline)
    say("Starting " + ", ".join(part.name for part in parts) + ".")
    try:
        supervisor.start(stop)
        if not stop.is_set():
            _await_all_well(settings, supervisor, stop)
            say(_welcome(settings))
            supervisor.watch(stop)
            say("Stopping ...")
    finally:
        supervisor.stop()
    say("Stopped.")


def _redis_part(redis: EmbeddedRedis) -> Part:
    def set_data_aside() -> bool:
        moved = redis.set_data_aside()
        log.warning("the queue's files were unreadable", extra={"moved_to": [str(path) for path in moved]})
        return bool(moved)

    return Part(
        "redis",
        redis.command,
        redis.folder,
        is_ready=redis.answers,
        remedy=set_data_aside,
        words=f"in {redis.log}",
        ready_seconds=15.0,
    )


def _web_part(settings: Settings, host: str, redis_url: str) -> Part:
    bind = f"{host}:{settings.port}"
    command = (
        sys.executable,
        "-m",
        "gunicorn",
        "--no-control-socket",
        "--workers",
        str(WEB_PROCESSES),
        "--bind",
        bind,
        "app:create_app()",
    )
    live = f"{_url(settings)}/health/live"
    return Part("web", command, PROJECT, _environment(redis_url), is_ready=lambda: api.get(live) is not None)


def _worker_part(name: str, queues: str, processes: int, redis_url: str) -> Part:
    options = (f"--concurrency={processes}", f"--queues={queues}")
    command = (sys.executable, "-m", "celery", "-A", "worker", "--quiet", "worker", *options)
    return Part(name, command, PROJECT, _environment(redis_url), stop_seconds=WORKER_STOP_SECONDS)


def _environment(redis_url: str) -> dict[str, str]:
    return {"REDIS_URL": redis_url, "PYTHONUNBUFFERED": "1"}


def _url(settings: Settings) -> str:
    return f"http://{LOOPBACK}:{settings.port}"


def _await_all_well(settings: Settings, supervisor: Supervisor, stop: Event) -> None:
    """Until bundle and snapshot serve, and, for a while longer, until worker and queue are there too.

    Raises CannotRun with what /health says when bundle or snapshot cannot serve.
    """
    url, started = _url(settings), time.monotonic()
    while not stop.wait(LOOK_EVERY_SECONDS):
        supervisor.tend()
        health, waited = api.get_json(f"{url}/health"), time.monotonic() - started
        if health.get("status") == "ok":
            return
        if health.get("status") == "degraded" and waited > ALL_WELL_SECONDS:
            say(f"The API answers, but not all is well yet: {_ailing(health)}")
            return
        if health.get("status") == "unavailable" or waited > READY_SECONDS:
            raise CannotRun(f"the API cannot serve: {_ailing(health)}")


def _ailing(health: dict[str, Any]) -> str:
    """The parts that are away, each with why."""
    if not health:
        return "it gives no answer; its log is above."
    parts = {name: health.get(name, {}) for name in health.get("degraded", [])}
    return "; ".join(f"{name}: {part.get('message', part)}" for name, part in parts.items())


def _welcome(settings: Settings) -> str:
    """The addresses, and three commands that work as they stand."""
    url, template, answer = _url(settings), settings.var_dir / "template.csv", settings.var_dir / "upload.json"
    body = api.get(f"{url}/bulk/template?format=csv") or b"customer_id\n"
    template.write_bytes(body)
    customer_id = body.decode("utf-8-sig").splitlines()[1:2] or ["1"]
    json_body = '{"customer_id": "' + customer_id[0].split(",")[0].strip('"') + '"}'
    job_id = f'$(sed -n \'s/.*"job_id": *"\\([^"]*\\)".*/\\1/p\' {shlex.quote(str(answer))})'
    return f"""
Serving. Ctrl-C ends it.

  API      {url}
  Docs     {url}/docs
  Health   {url}/health

Copy into another terminal:

  # one customer
  curl -s {url}/predict -H 'Content-Type: application/json' -d {shlex.quote(json_body)}

  # a file of customers
  curl -s {url}/bulk/predict -F file=@{shlex.quote(str(template))} | tee {shlex.quote(str(answer))}

  # its result
  curl -s --fail --retry 20 --retry-delay 1 --retry-all-errors "{url}/bulk/download/{job_id}"
"""
