"""A link between two programs on this machine that a test can cut, or fill with silence, and mend."""

import socket
import struct
import threading
from contextlib import suppress

LOOPBACK = "127.0.0.1"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: the other side gets RST, not FIN


class TcpProxy:
    """Passes bytes on between its own port on the loopback address and `target_port` there, while it is told to.

    The states: passing (at first, and after `restore` and `forget`), cut, black hole. Every method may be called in every state and
    from any thread. A context manager: closed at the end.
    """

    def __init__(self, target_port: int) -> None:
        self._target = (LOOPBACK, target_port)
        self._lock = threading.Lock()
        self._flows = _set_event()
        self._forgotten: list[threading.Event] = []
        self._is_cut = False
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((LOOPBACK, 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name=f"proxy-{self.port}", daemon=True).start()

    def cut(self) -> None:
        """Resets every connection, and every new one at once: as when the server's machine says no."""
        with self._lock:
            self._is_cut = True
            ended, self._open = self._open, set()
            waiting, self._forgotten = [*self._forgotten, self._flows], []
        for end in ended:
            _reset(end)
        for flows in waiting:
            flows.set()  # whoever waits for the link finds it closed

    def black_hole(self) -> None:
        """Accepts connections and passes nothing on, closings included: as when every packet is lost.

        What was sent meanwhile arrives after `restore`, as TCP's retransmissions do, if both ends still listen.
        """
        with self._lock:
            self._flows.clear()
            self._is_cut = False

    def forget(self) -> None:
        """What is open now stays silent for ever, as when a firewall drops its table; new connections pass."""
        with self._lock:
            self._flows.clear()
            self._forgotten.append(self._flows)
            self._flows = _set_event()
            self._is_cut = False

    def restore(self) -> None:
        """Passes everything on again."""
        with self._lock:
            self._is_cut = False
            self._flows.set()

    def close(self) -> None:
        """Ends every connection, and listens no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self.cut()

    def __enter__(self) -> "TcpProxy":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(near,), name=f"proxy-{self.port}", daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        flows = self._flows
        if not self._keep(near):
            return
        flows.wait()
        try:
            far = socket.create_connection(self._target, timeout=5)
        except OSError:
            self._end(near)
            return
        far.settimeout(None)
        if not self._keep(far):
            return
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=self._pass_on, args=(far, near, flows), name=f"proxy-{self.port}", daemon=True).start()
        self._pass_on(near, far, flows)

    def _keep(self, end: socket.socket) -> bool:
        with self._lock:
            if not self._is_cut:
                self._open.add(end)
                return True
        _reset(end)
        return False

    def _pass_on(self, source: socket.socket, sink: socket.socket, flows: threading.Event) -> None:
        with suppress(OSError):
            while piece := source.recv(65_536):
                flows.wait()
                sink.sendall(piece)
        flows.wait()
        self._end(source)
        self._end(sink)

    def _end(self, end: socket.socket) -> None:
        with self._lock:
            self._open.discard(end)
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


def _set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def _reset(end: socket.socket) -> None:
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    with suppress(OSError):
        end.shutdown(socket.SHUT_RD)  # wakes the thread that reads
    end.close()
