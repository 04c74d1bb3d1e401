"""Of what a program printed the last lines that say something are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcsweep.store.excerpts import excerpt, read_excerpt

HYDRA = """\
Error executing job with overrides: ['lr=0.1']
Traceback (most recent call last):
  File "/w/train.py", line 7, in main
    raise ValueError("lr is odd")
ValueError: lr is odd

Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.
"""
TORCHRUN = """\
epoch 1 loss 0.5
[rank0]: Traceback (most recent call last):
[rank0]:   File "/w/train.py", line 3, in <module>
[rank0]:     raise RuntimeError("shapes differ")
[rank0]: RuntimeError: shapes differ
E1128 20:10:00.000000 4711 site-packages/torch/distributed/elastic/multiprocessing/api.py:869] failed
Traceback (most recent call last):
  File "/env/bin/torchrun", line 8, in <module>
    sys.exit(main())
             ^^^^^^
  File "/env/lib/python3.11/site-packages/torch/distributed/run.py", line 918, in main
    run(args)
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
------------------------------------------------------------
Failures:
  <NO_OTHER_FAILURES>
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-28_20:10:00
  host      : n1
  rank      : 0 (local_rank: 0)
  exitcode  : 1 (pid: 4712)
  error_file: <N/A>
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
"""
CHAINED = """\
Traceback (most recent call last):
  File "a.py", line 2, in <module>
    {}["x"]
    ~~^^^^^
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 4, in <module>
    raise OSError("no data")
OSError: no data
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        ("\n \n\t\n", ""),
        ("a\nb\nc\nd\n", "b | c | d"),
        ("a\nb", "a | b"),
        ("a\n\n[hpcsweep] ours\n\n", "a"),
        ("lost\rkept\n", "kept"),
        ("windows\r\nlines\r\n", "windows | lines"),
        ("done\n 10%|#   | 1/10 [00:01<00:09,  1.0it/s]\r100%|####| 10/10 [00:10<00:00,  1.0it/s]\n", "done"),
        ("bad\nEpoch 3:  42%|## | 42/100 [00:01<00:02, 30.1it/s, v_num=0]", "bad"),
        ("\x1b[1;31merror:\x1b[0m no\x07 file\x1b]0;title\x07\n", "error: no file"),
        ("x" * 400, "x" * 300),
        ("step 1\n" + HYDRA, "train.py:7 in main | ValueError: lr is odd"),
        (TORCHRUN, "train.py:3 | RuntimeError: shapes differ"),
        (CHAINED, "a.py:4 | OSError: no data"),
        (
            "RuntimeError: CUDA error\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\n",
            "RuntimeError: CUDA error",
        ),
        (
            "  indented\n    usage: prog\nprog: error: no --lr\n",
            "indented | usage: prog | prog: error: no --lr",
        ),
        ("no data\nsrun: error: n1: task 0: Exited with exit code 1\n", "no data"),
        ("loss: 3\ntime: 12 s\n", "loss: 3 | time: 12 s"),
    ],
)
def test_uninformative_lines_are_left_out(text: str, words: str) -> None:
    assert excerpt(text) == words


def test_only_the_end_of_a_large_log_is_read_and_a_missing_log_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("x\n" * 1_000_000 + "the end\n")
    assert read_excerpt(path) == "x | x | the end"
    assert read_excerpt(tmp_path / "none") == ""
