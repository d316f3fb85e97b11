"""Free and taken TCP ports of this machine."""

import socket

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A port on loopback that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_taken(host: str, port: int) -> bool:
    """True when a server that binds `host:port` would fail, or would share the port with one on loopback."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        if probe.connect_ex((LOOPBACK, port)) == 0:
            return True
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn: a port in TIME_WAIT is free
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False
