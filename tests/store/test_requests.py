"""Requests of other commands: each is one file, read oldest first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcsweep.errors import FolderError
from hpcsweep.store.layout import Layout
from hpcsweep.store.requests import Request, new_requests, remove_request, write_request


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "a sweep")


def stop(at: float) -> Request:
    return Request("stop", at, "ada", {"why": "enough"})


def test_requests_are_read_as_written_oldest_first(layout: Layout) -> None:
    put = [write_request(layout, stop(at)).name for at in (3.0, 1.0, 2.0)]
    assert list(new_requests(layout, ())) == [
        (name, stop(at)) for name, at in zip(put, (3.0, 1.0, 2.0), strict=True)
    ]


def test_a_request_that_was_seen_or_removed_is_not_read(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (write_request(layout, stop(at)).name for at in (1.0, 2.0, 3.0))
    remove_request(layout, third)
    (layout.control / first).write_bytes(b"not to be opened")
    assert list(new_requests(layout, {first})) == [(second, stop(2.0))]


def test_removing_a_request_twice_is_no_error(layout: Layout) -> None:
    name = write_request(layout, stop(1.0)).name
    remove_request(layout, name)
    remove_request(layout, name)
    assert os.listdir(layout.control) == []


def test_a_folder_without_requests_has_none(layout: Layout) -> None:
    assert list(new_requests(layout, ())) == []
    layout.control.mkdir(parents=True)
    assert list(new_requests(layout, ())) == []


def test_half_written_and_foreign_files_are_no_requests(layout: Layout) -> None:
    name = write_request(layout, stop(1.0)).name
    for other in (f".{name}.17.tmp", "README", ".hidden.json"):
        (layout.control / other).write_bytes(b"{")
    assert list(new_requests(layout, ())) == [(name, stop(1.0))]


def test_a_request_that_another_driver_removes_meanwhile_is_not_read(layout: Layout) -> None:
    gone, stays = (write_request(layout, stop(at)).name for at in (1.0, 2.0))
    reading = new_requests(layout, _Dropping(layout, gone))
    assert list(reading) == [(stays, stop(2.0))]


class _Dropping:
    """Nothing was seen; a request is dropped as soon as it is asked for."""

    def __init__(self, layout: Layout, name: str) -> None:
        self.layout, self.name = layout, name

    def __contains__(self, name: object) -> bool:
        if name == self.name:
            remove_request(self.layout, self.name)
        return False


def test_a_folder_that_cannot_be_written_is_an_error_in_words(layout: Layout) -> None:
    layout.root.mkdir()
    layout.control.write_bytes(b"in the way")
    with pytest.raises(FolderError) as caught:
        write_request(layout, stop(1.0))
    assert str(caught.value) == f"{layout.control}: cannot be written: File exists"
