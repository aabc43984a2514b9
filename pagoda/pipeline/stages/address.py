"""Where a page is served: the socket, and whether other machines reach it."""

from __future__ import annotations

import ipaddress
import socket

from pagoda.errors import PagodaError


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; 0 is any free port.

    Raises:
        PagodaError: one line: the port is in use or not allowed, or the host is not this machine.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise PagodaError(
            f"cannot serve at port {port} of {host}: {(error.strerror or str(error)).lower()}; "
            "choose another with --port (0: any that is free) or --host"
        ) from error


def url(door: socket.socket, host: str) -> str:
    """What to type into a browser for a socket of :func:`listen`."""
    return f"http://{f'[{host}]' if ':' in host else host}:{door.getsockname()[1]}"


def is_loopback(door: socket.socket) -> bool:
    """Whether only this machine reaches the socket."""
    address = str(door.getsockname()[0])
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
