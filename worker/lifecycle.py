"""What happens in the course of a worker's life: logs, the watchdog, pool processes that come and go, a prompt end."""

import warnings
from typing import Any

from billiard.exceptions import WorkerLostError
from celery import Celery, bootsteps, platforms, signals
from celery.apps.worker import install_worker_term_hard_handler
from celery.exceptions import CPendingDeprecationWarning

from config import Settings
from services.logs import configure_logging
from worker.watchdog_thread import WatchdogThread

_connected: list[Any] = []  # Celery keeps weak references to handlers; these must live as long as the process


def attach(app: Celery, settings: Settings) -> None:
    """Connects a worker's life to what is to happen in it."""
    controllers: list[Any] = []
    thread = WatchdogThread(settings, lambda: _pool_pids(controllers))

    class PromptEnd(bootsteps.StartStopStep):  # type: ignore[misc]
        """Before the first connection is tried: a worker without Redis is told to stop as well."""

        requires = ("celery.worker.components:Pool",)

        def start(self, controller: Any) -> None:
            controllers.append(controller)
            warnings.simplefilter("ignore", CPendingDeprecationWarning)  # on each reconnect, of a setting that is made
            thread.ending.watch()
            _stop_softly_on_sigterm(controller, thread)

    def on_logging(**_facts: Any) -> None:
        configure_logging(settings.log_level)

    def on_ready(sender: Any, **_facts: Any) -> None:
        thread.start(sorted(sender.app.amqp.queues.consume_from))

    def on_received(**_facts: Any) -> None:
        thread.hear()

    def on_failure(exception: BaseException, **_facts: Any) -> None:
        if isinstance(exception, WorkerLostError):
            thread.wake()

    def on_pool_process(**_facts: Any) -> None:
        from worker.process import services

        services()

    app.steps["worker"].add(PromptEnd)
    signals.setup_logging.connect(on_logging)
    signals.worker_ready.connect(on_ready)
    signals.task_received.connect(on_received)
    signals.task_failure.connect(on_failure)
    signals.worker_process_init.connect(on_pool_process)
    _connected.extend((on_logging, on_ready, on_received, on_failure, on_pool_process))


def _stop_softly_on_sigterm(controller: Any, thread: WatchdogThread) -> None:
    """SIGTERM, as SIGQUIT: two seconds for tasks to end, then they are cut off; the worker's leases are given back."""
    install_worker_term_hard_handler(controller)
    end_softly = platforms.signals["SIGQUIT"]

    def end(*signal_and_frame: Any) -> None:
        thread.ending.begin()
        end_softly(*signal_and_frame)

    platforms.signals["SIGTERM"] = platforms.signals["SIGQUIT"] = end


def _pool_pids(controllers: list[Any]) -> set[int]:
    """The processes of the worker's pool, as the pool itself knows them; none where they are threads."""
    pools = [getattr(controller.pool, "_pool", None) for controller in controllers]
    return {process.pid for pool in pools for process in list(getattr(pool, "_pool", ()))}
