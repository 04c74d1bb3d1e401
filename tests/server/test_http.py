"""Who may read what: the token, the host's name, paths and methods; and what headers say."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from hpcsweep.server.http import SweepServer
from tests.cli.test_list import write
from tests.server.serving import EVENTS, serving
from tests.waiting import PATIENCE_S, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SweepServer]:
    """Of one sweep, with another one beside its folder."""
    folder = tmp_path_factory.mktemp("served")
    for name in ("inside/one", "inside/broken", "outside"):
        write(folder / name, EVENTS, age_s=60)
    with serving(folder / "inside") as server:
        server.library.list_page()
        next(iter((folder / "inside" / "broken" / "journal").iterdir())).write_text("nonsense\nnonsense\n")
        yield server


def token(server: SweepServer) -> str:
    return server.url.rpartition("=")[2]


def ask(
    server: SweepServer, path: str, *, method: str = "GET", host: str | None = None, cookie: str | None = None
) -> tuple[HTTPResponse, str]:
    """The answer and its body; asked with the cookie unless another one is given."""
    given = server.cookie().partition(";")[0] if cookie is None else cookie
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=PATIENCE_S)
    connection.putrequest(method, path, skip_host=True)
    if host != "":
        connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    if given:
        connection.putheader("Cookie", given)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer, body


def test_the_token_goes_from_the_address_into_a_cookie_for_this_server_alone(server: SweepServer) -> None:
    path = server.url.partition(str(server.server_port))[2]
    assert path == f"{server.home}?token={token(server)}"
    answer, body = ask(server, path, cookie="")
    assert (answer.status, answer.headers["Location"], body) == (303, server.home, "")
    cookie = answer.headers["Set-Cookie"]
    assert cookie == f"hpcsweep={token(server)}; Path={server.home}; HttpOnly; SameSite=Strict"
    answer, body = ask(server, server.home, cookie=f"other=1; {cookie.partition(';')[0]}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert 'href="report/0/one"' in body
    assert token(server) not in body


def test_two_servers_share_neither_token_nor_path(server: SweepServer, tmp_path: Path) -> None:
    with serving(tmp_path) as other:
        assert len({token(server), token(other), server.home, other.home}) == 4
        assert ask(other, other.home, cookie=f"hpcsweep={token(server)}")[0].status == 403


def test_nothing_is_said_without_the_token(server: SweepServer) -> None:
    right = token(server)
    wrong = [right[:-1], right + "x", right.swapcase(), "", "é"]
    cookies = ["", f"another={right}", *(f"hpcsweep={each}" for each in wrong[:-1])]
    answers = [ask(server, server.home, cookie=cookie) for cookie in cookies]
    answers += [ask(server, f"{server.home}?token={each}", cookie="") for each in wrong[:-2]]
    answers.append(ask(server, f"{server.home}?token=%C3%A9", cookie=""))
    answers.append(ask(server, f"{server.home}?token={right}&token=x", cookie=""))
    answers.append(ask(server, f"{server.home}?token=x"))  # in spite of the cookie
    answers.append(ask(server, f"{server.home}report/0/one", cookie=""))
    answers += [ask(server, path) for path in ("/", "/other/", f"/?token={right}")]  # not its path
    words = "This address needs a token: open the one that `hpcsweep serve` printed.\n"
    assert {(answer.status, body, answer.headers["Set-Cookie"]) for answer, body in answers} == {
        (403, words, None)
    }


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1", ""])
def test_other_names_of_this_machine_are_refused_even_with_the_token(server: SweepServer, host: str) -> None:
    asked = host.format(port=server.server_port)
    answer, body = ask(server, server.home, host=asked)
    assert answer.status == 403
    assert body.startswith(f"This server answers to 127.0.0.1:{server.server_port} alone")
    assert ask(server, server.home, host=f"localhost:{server.server_port}")[0].status == 200


@pytest.mark.parametrize(
    "path",
    [
        "report/0/../outside",
        "report/0/%2e%2e/outside",
        "report/0/one/../one",
        "report/0/%2Fetc/passwd",
        "report//etc/passwd",
        "report/0/one/journal/000001.jsonl",
        "report/9/one",
        "report/0/one%00",
        "../outside",
        "other/0/one",
    ],
)
def test_paths_lead_to_sweeps_that_were_found_and_nowhere_else(server: SweepServer, path: str) -> None:
    answer, body = ask(server, server.home + path)
    assert (answer.status, body) == (404, "There is no such sweep below the folders that are served.\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_it_can_only_be_read(server: SweepServer, method: str) -> None:
    answer, body = ask(server, server.home, method=method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert body == "This server can only be read.\n"


def test_every_answer_has_the_headers_that_keep_pages_apart(server: SweepServer) -> None:
    for path, cookie, method in [
        (server.home, None, "GET"),
        (f"{server.home}report/0/one", None, "GET"),
        (f"{server.home}report/0/broken", None, "GET"),
        (server.home, "", "GET"),
        (f"{server.home}?token={token(server)}", "", "GET"),
        (server.home, None, "POST"),
    ]:
        headers = ask(server, path, cookie=cookie, method=method)[0].headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe-inline'; img" in policy or "script-src" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Server"] == "hpcsweep"
        assert headers["Access-Control-Allow-Origin"] is None


def test_a_head_has_the_headers_of_the_page_and_no_body(server: SweepServer) -> None:
    answer, body = ask(server, server.home, method="HEAD")
    assert (answer.status, body) == (200, "")
    assert int(answer.headers["Content-Length"]) > 1000


def test_a_sweep_that_broke_since_it_was_listed_is_told_in_words(server: SweepServer) -> None:
    answer, body = ask(server, f"{server.home}report/0/broken")
    assert answer.status == 500
    assert "000001.jsonl" in body
    assert "damaged: " in body
    assert f'<a href="{server.home}">All sweeps</a>' in body


def test_a_page_that_cannot_be_made_is_answered_and_the_terminal_says_why(
    server: SweepServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> str:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(server.library, "list_page", fail)
    answer, body = ask(server, server.home)
    assert (answer.status, body) == (500, "This page could not be made: see where `hpcsweep serve` runs.\n")
    told = capfd.readouterr().err
    assert "ZeroDivisionError: odd" in told
    assert token(server) not in told


def test_what_is_no_request_is_refused_and_nobody_is_told_of_who_goes_away(
    server: SweepServer, capfd: pytest.CaptureFixture[str]
) -> None:
    for asked, line in [
        (b"\x16\x03\x01\r\n\r\n", b"Bad Request\n"),
        (b"GET / HTTP/9.9\r\n\r\n", b"HTTP Version Not Supported\n"),
    ]:
        with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
            connection.sendall(asked)
            with connection.makefile("rb") as answer:
                assert answer.readline() == line
    assert capfd.readouterr().err == ""


def test_connections_that_say_nothing_cannot_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcsweep.server.http.MOST_AT_ONCE", 2)
    with serving(tmp_path) as server, contextlib.ExitStack() as stack:
        address = ("127.0.0.1", server.server_port)
        idle = [stack.enter_context(socket.create_connection(address)) for _ in range(2)]
        late = stack.enter_context(socket.create_connection(address, timeout=PATIENCE_S))
        assert late.recv(1) == b""
        idle[0].shutdown(socket.SHUT_WR)
        assert idle[0].recv(1) == b""
        while True:  # until its thread has ended
            with contextlib.suppress(ConnectionError):
                assert ask(server, server.home)[0].status == 200
                break


def test_a_server_that_has_ended_answers_nobody_who_had_connected(tmp_path: Path) -> None:
    with serving(tmp_path) as server, contextlib.ExitStack() as stack:
        address = ("127.0.0.1", server.server_port)
        connection = stack.enter_context(socket.create_connection(address, timeout=PATIENCE_S))
        wait_until(lambda: server.connections)
        server.shutdown()
        server.server_close()
        answer = b""
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = connection.recv(1)
        assert answer == b""
