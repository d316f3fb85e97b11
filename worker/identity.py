"""What workers and their processes are called in the job table.

A worker is named by its host and its main process, a pool process by its worker and its own number. So leases can be taken
back of a whole worker, or of the one process that was lost.
"""

import os
import socket


def worker_id() -> str:
    """The name of the worker whose main process this is."""
    return f"{socket.gethostname()}:{os.getpid()}"


def process_id() -> str:
    """The name of this process, which belongs to the pool of the worker that started it."""
    return pool_process_id(f"{socket.gethostname()}:{os.getppid()}", os.getpid())


def pool_process_id(worker: str, pid: int) -> str:
    """The name of the pool process `pid` of a worker."""
    return f"{worker}/{pid}"
