"""A model of characters whose settings are globals: `python char_gpt.py --learning_rate=1e-3`."""

import json
import os
import sys
from ast import literal_eval

# -----------------------------------------------------------------------------
# I/O
out_dir = "out"
eval_interval = 20
log_interval = 10
eval_iters = 5
eval_only = False  # if True, script exits right after the first eval
always_save_checkpoint = True
init_from = "scratch"  # 'scratch' or 'resume'
# wandb logging
wandb_log = False
wandb_project = "owt"
# data
dataset = "shakespeare"
gradient_accumulation_steps = 1
batch_size = 12
block_size = 64
# model
n_layer = 4
n_head = 4
n_embd = 128
dropout = 0.0
bias = False
# optimizer
learning_rate = 6e-4
max_iters = 200
weight_decay = 1e-1
beta1 = 0.9
beta2 = 0.95
grad_clip = 1.0
decay_lr = True
warmup_iters = 20
min_lr = 6e-5
device = "cpu"
compile = False
# -----------------------------------------------------------------------------
config_keys = [
    k for k, v in globals().items() if not k.startswith("_") and isinstance(v, (int, float, bool, str))
]
for arg in sys.argv[1:]:
    key, val = arg.removeprefix("--").split("=")
    if key not in globals():
        raise ValueError(f"Unknown config key: {key}")
    try:
        attempt = literal_eval(val)
    except (SyntaxError, ValueError):
        attempt = val
    assert type(attempt) == type(globals()[key]), f"{key}: {attempt!r}"
    globals()[key] = attempt
# -----------------------------------------------------------------------------

os.makedirs(out_dir, exist_ok=True)
iter_num = 0
best_val_loss = 1e9
if init_from == "resume":
    print(f"Resuming training from {out_dir}")
    ckpt_path = os.path.join(out_dir, "ckpt.json")
    with open(ckpt_path) as file:
        checkpoint = json.load(file)
    iter_num = checkpoint["iter_num"]
    best_val_loss = checkpoint["best_val_loss"]


def estimate_loss():
    gap = abs(learning_rate - 1e-3) * 100 + dropout * 0.1
    return {"train": 1.0 / (1 + iter_num / 50) + gap, "val": 1.1 / (1 + iter_num / 50) + gap}


while True:
    if iter_num % eval_interval == 0:
        losses = estimate_loss()
        print(f"step {iter_num}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}")
        if losses["val"] < best_val_loss or always_save_checkpoint:
            best_val_loss = losses["val"]
            if iter_num > 0:
                checkpoint = {"iter_num": iter_num, "best_val_loss": best_val_loss}
                print(f"saving checkpoint to {out_dir}")
                with open(os.path.join(out_dir, "ckpt.json"), "w") as file:
                    json.dump(checkpoint, file)
    if iter_num == 0 and eval_only:
        break
    if iter_num % log_interval == 0:
        print(
            f"iter {iter_num}: loss {1.0 / (1 + iter_num / 50):.4f}, time {0.1 * 1000:.2f}ms, mfu {1.5 * 100:.2f}%"
        )
    iter_num += 1
    if iter_num > max_iters:
        break
