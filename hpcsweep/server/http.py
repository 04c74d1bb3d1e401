"""Serves the pages on this machine's loopback to whoever has the token, and refuses everything else.

Every user of a login node can connect to its loopback, and any website can make a browser ask it. So a
request needs the token, in a cookie that scripts cannot read and that no other site can make a browser send.
It needs the server's own name as its host, which no foreign name that resolves to 127.0.0.1 is (DNS
rebinding). And it can only read.

The token comes in the address that is printed, and a redirect takes it out at once: addresses stay in
histories, and are seen on screens. Browsers send the cookies of a host to all its ports, so another user's
server on the same node could collect ours, if that user could guess the path that the cookie is bound to.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import socket
import socketserver
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, unquote_to_bytes

from hpcsweep.errors import HpcsweepError
from hpcsweep.html.page import policy_of
from hpcsweep.server.library import Library, problem_page

LOOPBACK: Final = "127.0.0.1"
#: Seconds that a client may keep silent.
IDLE_S: Final = 30
#: Requests that are answered at once: anybody on this machine can connect.
MOST_AT_ONCE: Final = 32
_COOKIE: Final = "hpcsweep"
#: Of what is no page.
_NOTHING: Final = "default-src 'none'; frame-ancestors 'none'"
_METHODS: Final = "GET, HEAD"
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class _Refusal(Exception):
    """The request is not answered, and why."""

    def __init__(self, status: HTTPStatus, words: str) -> None:
        super().__init__(words)
        self.status = status


class SweepServer(ThreadingHTTPServer):
    """A server on the loopback, with a token and a path that are new each time.

    Args:
        library: What it shows.
        port: 0: a free one.

    Raises:
        OSError: The port cannot be had.
    """

    def __init__(self, library: Library, *, port: int = 0) -> None:
        self.library = library
        self.home = f"/{secrets.token_urlsafe(12)}/"
        self._token = secrets.token_urlsafe(32)
        #: Those that are open now.
        self.connections: set[socket.socket] = set()
        super().__init__((LOOPBACK, port), _Handler)

    def server_bind(self) -> None:
        """Without the name server, which HTTPServer asks for its own name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, while there are not too many."""
        if len(self.connections) < MOST_AT_ONCE:
            self.connections.add(request)
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """What such a thread does."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.discard(request)

    def server_close(self) -> None:
        """Answers nobody any more, nor who has connected already and not asked yet."""
        super().server_close()
        for connection in tuple(self.connections):
            with contextlib.suppress(OSError):  # closed a moment ago
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def url(self) -> str:
        """With the token."""
        return f"http://{LOOPBACK}:{self.server_port}{self.home}?token={self._token}"

    def cookie(self) -> str:
        """Carries the token from now on."""
        return f"{_COOKIE}={self._token}; Path={self.home}; HttpOnly; SameSite=Strict"

    def is_token(self, text: str) -> bool:
        """Whether it is the token; takes as long whatever it is."""
        return hmac.compare_digest(text.encode(errors="replace"), self._token.encode())

    def is_own_name(self, host: str) -> bool:
        """Whether a browser that asks this host means this server."""
        return host in (f"{LOOPBACK}:{self.server_port}", f"localhost:{self.server_port}")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who goes away in the middle of an answer is nothing to tell of."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: SweepServer
    timeout = IDLE_S

    def do_GET(self) -> None:
        """Answer, or say why not."""
        try:
            self._answer()
        except _Refusal as refusal:
            self._send_text(refusal.status, str(refusal))
        except ConnectionError:
            raise
        except Exception:
            self.server.handle_error(self.request, self.client_address)
            words = "This page could not be made: see where `hpcsweep serve` runs."
            self._send_text(HTTPStatus.INTERNAL_SERVER_ERROR, words)

    do_HEAD = do_GET  # noqa: N815

    def _answer(self) -> None:
        if not self.server.is_own_name(",".join(self.headers.get_all("Host", []))):
            raise _Refusal(
                HTTPStatus.FORBIDDEN,
                f"This server answers to {LOOPBACK}:{self.server.server_port} alone: through a tunnel, "
                "give it the same port at both ends.",
            )
        path, _, query = self.path.partition("?")
        given = parse_qs(query).get("token", [])
        if not path.startswith(self.server.home) or not self._has_token(given):
            raise _Refusal(
                HTTPStatus.FORBIDDEN,
                "This address needs a token: open the one that `hpcsweep serve` printed.",
            )
        if given:
            location = {"Location": path, "Set-Cookie": self.server.cookie()}
            self._send(HTTPStatus.SEE_OTHER, b"", policy=_NOTHING, more=location)
            return
        self._send_page(path.removeprefix(self.server.home))

    def _has_token(self, given: list[str]) -> bool:
        """By the address, which counts alone if it has one, or by a cookie."""
        if given:
            return len(given) == 1 and self.server.is_token(given[0])
        cookies = (part for each in self.headers.get_all("Cookie", []) for part in each.split(";"))
        named = (cookie.strip().partition("=") for cookie in cookies)
        return any(name == _COOKIE and self.server.is_token(value) for name, _, value in named)

    def _send_page(self, path: str) -> None:
        library, home = self.server.library, self.server.home
        if not path:
            self._send_html(HTTPStatus.OK, library.list_page())
            return
        kind, _, quoted = path.partition("/")
        key = os.fsdecode(unquote_to_bytes(quoted))
        try:
            html = library.report_page(key, home=home) if kind == "report" else None
        except (HpcsweepError, OSError) as error:
            html = problem_page(key.partition("/")[2], str(error), home=home)
            self._send_html(HTTPStatus.INTERNAL_SERVER_ERROR, html)
            return
        if html is None:
            raise _Refusal(HTTPStatus.NOT_FOUND, "There is no such sweep below the folders that are served.")
        self._send_html(HTTPStatus.OK, html)

    def _send_html(self, status: HTTPStatus, html: str) -> None:
        policy = f"{policy_of(html)}; frame-ancestors 'none'"
        self._send(status, html.encode(errors="replace"), policy=policy, kind="text/html")

    def _send_text(self, status: HTTPStatus, words: str, more: dict[str, str] | None = None) -> None:
        self._send(status, f"{words}\n".encode(), policy=_NOTHING, more=more)

    def _send(
        self,
        status: HTTPStatus,
        body: bytes,
        *,
        policy: str,
        kind: str = "text/plain",
        more: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body))}
        for name, value in (headers | _HEADERS | {"Content-Security-Policy": policy} | (more or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses: other methods, and what is no request."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._send_text(
                HTTPStatus.METHOD_NOT_ALLOWED, "This server can only be read.", {"Allow": _METHODS}
            )
        else:
            self._send_text(HTTPStatus(code), HTTPStatus(code).phrase)

    def version_string(self) -> str:
        """Nothing of Python's version."""
        return "hpcsweep"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: addresses may have the token."""
