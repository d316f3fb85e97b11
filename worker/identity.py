"""What a worker is called in the job table: by its host and its main process, whose pool processes share the name."""

import os
import socket

from billiard.process import current_process


def worker_id() -> str:
    """The name of the worker that this process is, or belongs to."""
    is_main = current_process()._name == "MainProcess"
    return f"{socket.gethostname()}:{os.getpid() if is_main else os.getppid()}"
