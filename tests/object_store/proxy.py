"""A small HTTP proxy in front of an object store, which does what networks and stores do on a bad day.

::

    proxy.when("GET", "data/").times(2).slow_down()
    proxy.when("PUT").lose_the_answer()

Each fault is for requests of a method whose path and query contain a text; the first that is left and fits is taken.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}
ALWAYS = 1 << 30


@dataclass
class Answer:
    """What the store said."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


Deed = Callable[["_Handler", Callable[[], Answer]], None]


@dataclass
class Fault:
    """What happens to which requests; ``count`` says how often it did."""

    proxy: FaultyProxy
    method: str
    part: str
    left: int = 1
    count: int = 0
    deed: Deed | None = None
    passed: int = 0

    def fits(self, method: str, path: str) -> bool:
        return self.deed is not None and self.left > 0 and method in self.method.split() and self.part in path

    def times(self, count: int) -> Self:
        self.left = count
        return self

    def always(self) -> Self:
        return self.times(ALWAYS)

    def after(self, count: int) -> Self:
        """The first so many pass."""
        self.passed = count
        return self

    def _do(self, deed: Deed) -> Self:
        self.deed = deed
        return self

    def refuse(self, status: int, code: str) -> Self:
        """The store answers with an error and does nothing."""
        body = f"<Error><Code>{code}</Code><Message>{code} was asked for</Message></Error>".encode()
        answer = Answer(status, [("Content-Type", "application/xml")], body)
        return self._do(lambda handler, ask: handler.answer(answer))

    def slow_down(self) -> Self:
        return self.refuse(503, "SlowDown")

    def fail(self) -> Self:
        return self.refuse(500, "InternalError")

    def deny(self) -> Self:
        return self.refuse(403, "AccessDenied")

    def reset(self) -> Self:
        """The connection breaks before the store hears of it."""
        return self._do(lambda handler, ask: handler.reset())

    def lose_the_answer(self) -> Self:
        """The store does what it was asked for, and nobody hears that it did."""

        def deed(handler: _Handler, ask: Callable[[], Answer]) -> None:
            ask()
            handler.reset()

        return self._do(deed)

    def kill(self, victim: Callable[[], int], *, heard: bool) -> Self:
        """The process that asks is killed: when the store has done what it asks for, or before it hears of it."""

        def deed(handler: _Handler, ask: Callable[[], Answer]) -> None:
            if heard:
                ask()
            os.kill(victim(), signal.SIGKILL)
            handler.reset()

        return self._do(deed)

    def break_in_the_body(self, sent_bytes: int) -> Self:
        """The connection breaks in the middle of the answer."""

        def deed(handler: _Handler, ask: Callable[[], Answer]) -> None:
            handler.answer(ask(), only_bytes=sent_bytes)
            handler.reset()

        return self._do(deed)

    def cut_off(self, kept_bytes: int) -> Self:
        """The answer is shorter than what is stored, and looks complete."""

        def deed(handler: _Handler, ask: Callable[[], Answer]) -> None:
            found = ask()
            headers = [(name, value) for name, value in found.headers if "checksum" not in name.lower()]
            handler.answer(Answer(found.status, headers, found.body[:kept_bytes]))

        return self._do(deed)

    def flip(self) -> Self:
        """One bit of the answer is another one."""

        def deed(handler: _Handler, ask: Callable[[], Answer]) -> None:
            found = ask()
            headers = [(name, value) for name, value in found.headers if "checksum" not in name.lower()]
            handler.answer(Answer(found.status, headers, found.body[:-1] + bytes([found.body[-1] ^ 1])))

        return self._do(deed)

    def hang(self) -> Self:
        """No answer ever comes."""
        return self._do(lambda handler, ask: handler.wait_for_the_end())

    def trickle(self) -> Self:
        """The answer comes a byte at a time, far too slowly."""
        return self._do(lambda handler, ask: handler.trickle(ask()))

    def hide(self, name: str) -> Self:
        """A listing does not show yet what was written."""

        def deed(handler: _Handler, ask: Callable[[], Answer]) -> None:
            found = ask()
            pattern = rf"<(Contents|CommonPrefixes)>(?:(?!</\1>).)*{re.escape(name)}.*?</\1>"
            body = re.sub(pattern, "", found.body.decode(), flags=re.DOTALL).encode()
            handler.answer(Answer(found.status, found.headers, body))

        return self._do(deed)


@dataclass
class FaultyProxy:
    """Listens on a port of its own until ``close``.

    Attributes:
        requests: method and path of all that came, in order.
    """

    upstream: tuple[str, int]
    requests: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.over = threading.Event()
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def when(self, method: str, part: str = "") -> Fault:
        """A fault for requests of this method whose path and query, and " conditional" if it is, contain ``part``.

        ``method`` may be several, with blanks between them.
        """
        fault = Fault(self, method, part)
        with self._lock:
            self.faults.append(fault)
        return fault

    def calm(self) -> None:
        """No fault is left."""
        with self._lock:
            self.faults.clear()

    def seen(self, method: str, part: str = "") -> int:
        """How many such requests came."""
        with self._lock:
            return sum(1 for one in self.requests if one.startswith(f"{method} ") and part in one)

    def take(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.requests.append(f"{method} {path}")
            for fault in self.faults:
                if not fault.fits(method, path):
                    continue
                if fault.passed:
                    fault.passed -= 1
                    return None
                fault.left -= 1
                fault.count += 1
                return fault
        return None

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the body waits 40 ms for the receiver to acknowledge the head

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))

        def ask() -> Answer:
            connection = http.client.HTTPConnection(*self.proxy.upstream, timeout=30)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            try:
                connection.request(self.command, self.path, body=body, headers=headers)
                found = connection.getresponse()
                content = found.read()
                head = [(n, v) for n, v in found.getheaders() if self.command == "HEAD" or n.lower() not in _HOP_BY_HOP]
                return Answer(found.status, head, content)
            finally:
                connection.close()

        conditional = " conditional" if "If-None-Match" in self.headers else ""
        fault = self.proxy.take(self.command, unquote(self.path + conditional))
        if fault is not None and fault.deed is not None:
            fault.deed(self, ask)
        else:
            self.answer(ask())

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815 - as the base class wants it

    def answer(self, answer: Answer, *, only_bytes: int | None = None) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body if only_bytes is None else answer.body[:only_bytes])
        self.wfile.flush()

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def wait_for_the_end(self) -> None:
        self.proxy.over.wait()
        self.close_connection = True

    def trickle(self, answer: Answer) -> None:
        self.answer(answer, only_bytes=0)
        for byte in answer.body:
            if self.proxy.over.wait(0.05):
                break
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
        self.close_connection = True

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (OSError, ValueError):  # whoever asked has left, or we have
            self.close_connection = True
