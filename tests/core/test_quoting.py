"""Command lines that are shown can be pasted as they are, whatever their words hold."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from hpcsweep.core.text import shell_join, shell_quote

WORDS = [
    "plain",
    "",
    "it's",
    'a "b" $HOME `c` \\n',
    "\x1b]0;title\x07",
    "\x1b'\\x41",
    "two\nlines\r\t.",
    "\u202eabc",
    "\xa0\u2028\U000e0001é",
    "\x01" + "23",
    "\udcff\udc80",
    *(chr(code) for code in range(1, 0x100)),
]


@pytest.mark.parametrize("shell", [name for name in ("bash", "zsh", "ksh") if shutil.which(name)])
def test_a_shell_reads_every_word_as_it_was(shell: str) -> None:
    line = shell_join(["printf", "%s\\0", *WORDS])
    assert line.isprintable()
    env = os.environ | {"LC_ALL": "C"}
    done = subprocess.run([shell, "-c", line], capture_output=True, env=env, check=True)
    assert done.stdout.split(b"\0")[:-1] == [word.encode("utf-8", "surrogateescape") for word in WORDS]


def test_what_any_shell_can_read_needs_no_escapes() -> None:
    assert [shell_quote(word) for word in ("a-b", "a b", "é'", "x\x1b[1m")] == [
        "a-b",
        "'a b'",
        """'é'"'"''""",
        r"$'x\033[1m'",
    ]
