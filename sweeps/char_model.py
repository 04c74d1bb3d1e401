"""A character model as people have one: it knows nothing of hpcsweep.

Its settings are the names below, each changed by `--name=value`. It evaluates now and then, prints that, and
then saves its state in a folder of its own, from which it goes on with `--init_from=resume`.
"""

import os
import sys
from ast import literal_eval

import numpy as np

out_dir = "out"
init_from = "scratch"  # or resume
eval_interval = 10
max_iters = 100
learning_rate = 1.0
n_hidden = 16
block_size = 3
batch_size = 64
seed = 1337
for argument in sys.argv[1:]:
    name, equals, text_value = argument.removeprefix("--").partition("=")
    if not equals or name not in globals():
        raise SystemExit(f"unknown setting: {name}")
    try:
        globals()[name] = literal_eval(text_value)
    except (SyntaxError, ValueError):
        globals()[name] = text_value

text = (
    "the quick brown fox jumps over the lazy dog while the slow green toad sleeps under the old stone. " * 20
)
letters = sorted(set(text))
tokens = np.array([letters.index(letter) for letter in text])
windows = np.lib.stride_tricks.sliding_window_view(tokens, block_size + 1)
train, val = windows[: len(windows) * 9 // 10], windows[len(windows) * 9 // 10 :]


def forward(
    model: dict[str, np.ndarray], batch: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    one_hot = np.eye(len(letters))[batch[:, :-1]].reshape(len(batch), -1)
    hidden = np.tanh(one_hot @ model["w1"])
    logits = hidden @ model["w2"]
    logits -= logits.max(1, keepdims=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = float(-np.log(probabilities[np.arange(len(batch)), batch[:, -1]]).mean())
    return one_hot, hidden, probabilities, loss


os.makedirs(out_dir, exist_ok=True)
checkpoint_file = os.path.join(out_dir, "ckpt.npz")
iteration = 0
if init_from == "resume":
    with np.load(checkpoint_file) as saved:
        model, iteration = {"w1": saved["w1"], "w2": saved["w2"]}, int(saved["iteration"])
    print(f"resuming from {checkpoint_file} at iteration {iteration}")
else:
    random = np.random.default_rng(seed)
    model = {
        "w1": random.normal(0, 0.1, (block_size * len(letters), n_hidden)),
        "w2": random.normal(0, 0.1, (n_hidden, len(letters))),
    }

while True:
    if iteration % eval_interval == 0:
        evaluated = [forward(model, split)[-1] for split in (train, val)]
        print(f"step {iteration}: train loss {evaluated[0]:.4f}, val loss {evaluated[1]:.4f}", flush=True)
        if iteration > 0:
            np.savez(checkpoint_file, **model, iteration=iteration)
    if iteration >= max_iters:
        break
    batch = train[np.random.default_rng([seed, iteration]).integers(len(train), size=batch_size)]
    one_hot, hidden, error, _ = forward(model, batch)
    error[np.arange(len(batch)), batch[:, -1]] -= 1
    error /= len(batch)
    back = error @ model["w2"].T * (1 - hidden**2)
    model["w2"] -= learning_rate * hidden.T @ error
    model["w1"] -= learning_rate * one_hot.T @ back
    iteration += 1
