"""What looks like a secret by its name is masked, and nothing else."""

from __future__ import annotations

import pytest

from hpcsweep.core.text import (
    MASK,
    is_secret,
    mask_arguments,
    mask_values,
    secret_arguments,
    secret_values,
)

SECRET = """
    WANDB_API_KEY HF_TOKEN AWS_SECRET_ACCESS_KEY PGPASSWORD GITHUB_PAT wandbApiKey DB_PWD MY_CREDENTIALS
    --api-key --password --auth-token SMTP_PASS COMET_APIKEY
""".split()  # noqa: SIM905
PLAIN = """
    TOKENIZERS_PARALLELISM OMP_NUM_THREADS MONKEY CUDA_VISIBLE_DEVICES max_tokens PATH --keys lr KEYBOARD
    author PASSES NCCL_DEBUG
""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", SECRET)
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", PLAIN)
def test_other_names_are_not_taken_for_secrets(name: str) -> None:
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
