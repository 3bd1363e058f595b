"""A network between a browser and a server that breaks on request: threads, for Playwright is not Trio's."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import attrs

_CHUNK: Final = 65_536
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER that closes by RST."""


@attrs.define(eq=False)
class Network:
    """Made by ``open_network``. ``port`` leads to the server's."""

    port: int
    _open: threading.Event = attrs.field(factory=threading.Event)
    _sockets: set[socket.socket] = attrs.field(factory=set)

    def break_connections(self) -> None:
        """Every connection ends at once; new ones are taken."""
        for one in tuple(self._sockets):
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                one.shutdown(socket.SHUT_RDWR)

    def swallow(self) -> None:
        """Nothing passes any more, and nothing ends: a black hole."""
        self._open.clear()

    def pass_again(self) -> None:
        """What was held back passes, and what comes."""
        self._open.set()

    def carry(self, ours: socket.socket, server_port: int) -> None:
        """Between one connection of a browser and one to the server."""
        with ours, socket.create_connection(("127.0.0.1", server_port)) as theirs:
            self._sockets |= {ours, theirs}
            back = threading.Thread(target=self._pump, args=(theirs, ours), daemon=True)
            back.start()
            self._pump(ours, theirs)
            back.join()
            self._sockets -= {ours, theirs}

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                self._open.wait()
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def open_network(server_port: int) -> Iterator[Network]:
    """A port of localhost that leads to the server's, as long as it is let."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        network = Network(listener.getsockname()[1])
        network.pass_again()

        def accept() -> None:
            with suppress(OSError):
                while True:
                    ours, _ = listener.accept()
                    threading.Thread(target=network.carry, args=(ours, server_port), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield network
        network.pass_again()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        network.break_connections()
