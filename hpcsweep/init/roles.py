"""What an argument is for, by its name: a hyperparameter, how long to train, where to write, or else."""

from __future__ import annotations

import re
from typing import Final, Literal

from hpcsweep.init.found import Argument

#: `save` is the file or folder of the program's own checkpoints; `output` a folder for all that it writes.
Role = Literal["resource", "seed", "output", "save", "resume", "device", "data", "logging", ""]

#: Patterns of names, separated by blanks.
_ROLES: Final[tuple[tuple[Role, str], ...]] = (
    (
        "resource",
        r"""
        (num_?|n_?|max_?|total_?|train_?|num_train_)*(epochs?|iters?|iterations?|steps|updates|rounds|timesteps)
        nb_epochs? training_steps boosting_rounds? num_boost_round
        """,
    ),
    (
        "seed",
        r"""
        (random_?|manual_?|rng_?|global_?|torch_?|np_?)?seed random_state rand_seed
        """,
    ),
    (
        "resume",
        r"""
        resume(_from|_from_checkpoint|_path|_training|_ckpt|_checkpoint)? init_from
        restore(_from|_path|_ckpt)? load load_(checkpoint|ckpt|path|from|model|dir) start_from
        from_checkpoint ckpt_path warm_start_from
        """,
    ),
    (
        "save",
        r"""
        save save_(path|to|model|file|name|checkpoint|ckpt|weights) checkpoint(_path|_file|_dir)?
        model_(path|file|out) ckpt(_dir|_file|_path)? checkpoints(_dir)? snapshot(_dir|_path)?
        save_dir model_dir saved_model
        """,
    ),
    (
        "output",
        r"""
        out out_?(dir|put|folder|path|file) output(_?(dir|path|folder|file))? log_?dir run_?dir
        results?(_?(dir|path|file))? exp_?dir experiment_dir work_?dir default_root_dir
        log_?(file|path) csv(_?(file|path))? metrics(_?(file|path))? tensorboard(_?dir)? tb_?dir
        tb_log_dir artifact_dir save_results history(_file)?
        """,
    ),
    (
        "device",
        r"""
        device devices gpus? gpu_ids? (no_|use_|disable_)?(cuda|mps|gpu|accel) n_?gpus? num_gpus
        accelerator cpu cpus (num_)?workers n_?workers num_workers j n_?jobs threads num_threads
        world_size (local_)?rank dist\w* master_\w+ backend dtype precision (fp16|bf16|amp|tf32)
        compile use_amp pin_memory nodes multiprocessing\w* node_rank port no_accel strategy
        ddp\w* prefetch\w*
        """,
    ),
    (
        "data",
        r"""
        data data_?(set|dir|path|root|file|folder)? dataset(_\w+)?
        (train|val|valid|test|eval)_(file|path|data|dir|set) root path input(_\w+)? corpus
        vocab\w* tokenizer\w* csv_path task env(_id|_name)? file cache_dir num_classes n_samples
        samples train_size test_size val_(split|size|fraction) folds? cv max_train_samples
        image_size img_size
        """,
    ),
    (
        "logging",
        r"""
        (log|print|eval|save|test|val|checkpoint|report|display|plot|sample)_?(interval|freq|every|steps)
        (log|print|eval|save|test|val|checkpoint|report)_?(iters?|iterations?|epochs?|period|batches|frequency)
        verbose verbosity quiet debug silent wandb\w* (no_)?progress\w* project
        (run|exp|experiment|job|model)_name name tag tags comment notes version help dry_?run
        entity group always_save\w* eval_only evaluate test_only only_eval profile\w* save_model
        overwrite force config config_file cfg tune export onnx_export plot show interactive
        push_to_hub do_(train|eval|predict) start_epoch patience early_stop\w*
        """,
    ),
)
_COMPILED: Final = [(role, re.compile("|".join(patterns.split()))) for role, patterns in _ROLES]


def normalised(name: str) -> str:
    """The last part of a name in lower case, with underscores."""
    last = name.rpartition(".")[2]
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", last).replace("-", "_").lower()


def role_of(argument: Argument) -> Role:
    """The role; empty for hyperparameters and for what is not known."""
    name = normalised(argument.name)
    for role, pattern in _COMPILED:
        if pattern.fullmatch(name) and _may_be(role, argument):
            return role
    return ""


def _may_be(role: Role, argument: Argument) -> bool:
    """Whether the argument's kind fits the role."""
    match role:
        case "resource" | "seed":
            return argument.kind in ("int", "float", "text") and not argument.choices
        case "output" | "save":
            return argument.kind == "text"
        case "resume":
            return argument.kind in ("text", "bool")
        case _:
            return True
