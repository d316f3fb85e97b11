import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.tcp_proxy import TcpProxy


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that gives back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def echo(end: socket.socket) -> None:
            with end, suppress(ConnectionError):
                while piece := end.recv(1000):
                    end.sendall(piece)

        def accept() -> None:
            while True:
                try:
                    end, _address = listener.accept()
                except OSError:
                    return
                threading.Thread(target=echo, args=(end,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


@pytest.fixture
def proxy(echo_port) -> Iterator[TcpProxy]:
    with TcpProxy(echo_port) as running:
        yield running


def connect(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=0.3)


def answers(end: socket.socket, word: bytes) -> bool:
    end.sendall(word)
    return end.recv(100) == word


def test_it_passes_bytes_on_in_both_directions(proxy):
    with connect(proxy) as one, connect(proxy) as other:
        assert answers(one, b"a")
        assert answers(other, b"b")
        assert answers(one, b"c")


def test_a_cut_link_ends_connections_and_takes_no_new_ones_until_it_is_mended(proxy):
    with connect(proxy) as end:
        assert answers(end, b"a")
        proxy.cut()
        with pytest.raises(ConnectionError):
            answers(end, b"b") or answers(end, b"c")
    with pytest.raises(ConnectionError), connect(proxy) as end:
        answers(end, b"d") or answers(end, b"e")
    proxy.restore()
    with connect(proxy) as end:
        assert answers(end, b"f")


def test_a_black_hole_is_silent_and_delivers_late(proxy):
    with connect(proxy) as end:
        assert answers(end, b"a")
        proxy.black_hole()
        with pytest.raises(TimeoutError):
            answers(end, b"b")
        with connect(proxy) as new, pytest.raises(TimeoutError):
            answers(new, b"c")
        proxy.restore()
        assert end.recv(100) == b"b"


def test_a_black_hole_can_be_cut_and_a_cut_link_blackened(proxy):
    with connect(proxy) as end:
        assert answers(end, b"a")
        proxy.black_hole()
        proxy.cut()
        with pytest.raises(ConnectionError):
            answers(end, b"b") or answers(end, b"c")
    proxy.black_hole()
    with connect(proxy) as end, pytest.raises(TimeoutError):
        answers(end, b"d")
    proxy.restore()
    with connect(proxy) as end:
        assert answers(end, b"e")


def test_what_is_forgotten_stays_silent_and_new_connections_pass(proxy):
    with connect(proxy) as end:
        assert answers(end, b"a")
        proxy.forget()
        proxy.restore()
        with pytest.raises(TimeoutError):
            answers(end, b"b")
        with connect(proxy) as new:
            assert answers(new, b"c")
        proxy.cut()
        with pytest.raises(ConnectionError):
            answers(end, b"d") or answers(end, b"e")
