"""Text for people and shells: plurals, quoting and masking of secrets."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from hpcsweep.core.text import (
    MASK,
    is_secret,
    mask_arguments,
    mask_values,
    plural,
    secret_arguments,
    secret_values,
    shell_join,
    shell_quote,
)
from hpcsweep.views.format import runs_text

SECRET = """
    WANDB_API_KEY HF_TOKEN AWS_SECRET_ACCESS_KEY PGPASSWORD GITHUB_PAT wandbApiKey DB_PWD MY_CREDENTIALS
    --api-key --password --auth-token SMTP_PASS COMET_APIKEY
""".split()  # noqa: SIM905
PLAIN = """
    TOKENIZERS_PARALLELISM OMP_NUM_THREADS MONKEY CUDA_VISIBLE_DEVICES max_tokens PATH --keys lr KEYBOARD
    author PASSES NCCL_DEBUG
""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", SECRET)
def test_names_of_secrets_are_recognised(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", PLAIN)
def test_other_names_are_no_secrets(name: str) -> None:
    assert not is_secret(name)


ARGUMENTS = {
    "--set cluster.environment.WANDB_API_KEY=abc=def": f"--set cluster.environment.WANDB_API_KEY={MASK}",
    "--set cluster.environment.OMP_NUM_THREADS=4": "--set cluster.environment.OMP_NUM_THREADS=4",
    "--set cluster.environment={HF_TOKEN:abc,B:2}": f"--set cluster.environment={{HF_TOKEN:{MASK},B:2}}",
    "--token abc --lr 1": f"--token {MASK} --lr 1",
    "--api-key=abc": f"--api-key={MASK}",
    "https://ada:abcd@host/x": f"https://ada:{MASK}@host/x",
    "launch lr.yaml --set space.lr.low=0.1": "launch lr.yaml --set space.lr.low=0.1",
}


@pytest.mark.parametrize(("given", "shown"), ARGUMENTS.items())
def test_a_command_line_is_masked(given: str, shown: str) -> None:
    assert mask_arguments(given.split(" ")) == tuple(shown.split(" "))


def test_an_option_within_a_word_is_masked() -> None:
    assert mask_arguments(["train.command=python t.py --token abc --lr 1"]) == (
        f"train.command=python t.py --token {MASK} --lr 1",
    )


def test_values_are_masked_as_they_are_and_as_a_shell_has_them() -> None:
    values = secret_values({"A_KEY": "it's so", "B_KEY": "abc", "C": "plain", "D_TOKEN": None})
    assert values == ["'it'\"'\"'s so'", "it's so"]
    assert mask_values("export A_KEY='it'\"'\"'s so' # it's so", values) == f"export A_KEY={MASK} # {MASK}"
    assert secret_arguments(["--set", "cluster.environment.A_KEY=abcd", "b=1234"]) == ["abcd"]


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
def test_a_shell_reads_every_quoted_word_back(shell: str) -> None:
    line = shell_join(["printf", "%s\\0", *WORDS])
    assert line.isprintable()
    env = os.environ | {"LC_ALL": "C"}
    done = subprocess.run([shell, "-c", line], capture_output=True, env=env, check=True)
    assert done.stdout.split(b"\0")[:-1] == [word.encode("utf-8", "surrogateescape") for word in WORDS]


def test_plain_words_are_not_escaped() -> None:
    assert [shell_quote(word) for word in ("a-b", "a b", "é'", "x\x1b[1m")] == [
        "a-b",
        "'a b'",
        """'é'"'"''""",
        r"$'x\033[1m'",
    ]


@pytest.mark.parametrize(("number", "words"), [(0, "0 trials"), (1, "1 trial"), (2, "2 trials")])
def test_one_thing_is_singular_and_several_are_plural(number: int, words: str) -> None:
    assert plural(number, "trial") == words


def test_a_count_of_one_has_no_plural_s() -> None:
    assert runs_text({"completed": 1, "failed": 2}) == "1 run completed, 2 failed"
    assert runs_text({"completed": 0, "running": 1}) == "0 runs completed, 1 running"
