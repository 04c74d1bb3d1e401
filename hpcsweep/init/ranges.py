"""Ranges to search for hyperparameters that are known by their names, around the program's own defaults."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

from hpcsweep.init.found import Argument
from hpcsweep.init.roles import normalised

#: A parameter as it stands in a spec: a mapping, or a list of values.
Domain = dict[str, Any] | list[Any]
Rule = Callable[[Argument], Domain | None]


def _float(low: float, high: float, *, log: bool = False) -> Domain:
    return {"type": "float", "low": low, "high": high} | ({"log": True} if log else {})


def _int(low: int, high: int, *, log: bool = False) -> Domain:
    return {"type": "int", "low": low, "high": high} | ({"log": True} if log else {})


def _number(argument: Argument) -> float | None:
    """The default, if it is a number above 0."""
    value = argument.default
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


def _scale(below: float, above: float, *, low: float, high: float, most: float = math.inf) -> Rule:
    """A logarithmic range around the default, of round numbers; without one from `low` to `high`."""

    def rule(argument: Argument) -> Domain:
        default = _number(argument)
        if default is None:
            return _float(low, high, log=True)
        ends = _round(default / below), _round(min(default * above, max(most, 2 * default)))
        return _float(*ends, log=True)

    return rule


def _round(value: float) -> float:
    """One digit."""
    return float(f"{value:.0e}")


def _between(low: float, high: float) -> Rule:
    """This range, wide enough for the default."""

    def rule(argument: Argument) -> Domain:
        default = _number(argument)
        inside = default if default is not None else low
        return _float(min(low, inside), max(high, inside))

    return rule


def _ints(low: int, high: int, *, log: bool = False) -> Rule:
    def rule(argument: Argument) -> Domain:
        default = int(_number(argument) or low)
        return _int(min(low, default), max(high, default), log=log)

    return rule


def _around(below: int, above: int, *, low: int, high: int, log: bool = False) -> Rule:
    """Integers around the default."""

    def rule(argument: Argument) -> Domain:
        default = _number(argument)
        if default is None:
            return _int(low, high, log=log)
        return _int(max(1, int(default) // below), max(2, int(default) * above), log=log)

    return rule


def _doublings(below: int, above: int, *, default: int) -> Rule:
    """Half, double and so on: sizes that stay divisible where the default is."""

    def rule(argument: Argument) -> Domain | None:
        if argument.kind == "list":
            return _layers(argument)
        if argument.default == 0:  # worked out by the program
            return None
        middle = int(_number(argument) or default)
        found = [middle]
        while len(found) <= below and found[0] % 2 == 0 and found[0] > 1:
            found.insert(0, found[0] // 2)
        found += [middle * 2**step for step in range(1, above + 1)]
        return {"type": "ordinal", "values": found}

    return rule


def _layers(argument: Argument) -> Domain:
    """Lists of layer sizes: one layer less, as it is, and twice as wide."""
    sizes = argument.default if isinstance(argument.default, tuple) else [64, 64]
    sizes = [size for size in sizes if isinstance(size, int)] or [64, 64]
    values = [sizes[:-1] or [max(1, sizes[0] // 2)], sizes, [2 * size for size in sizes]]
    return {"type": "choice", "values": [list(value) for value in values], "format": "repeat"}


def _gamma(argument: Argument) -> Domain:
    """Decay, discount, or the width of a kernel: by the default."""
    default = _number(argument)
    if default is None or default > 1:
        return _float(1e-4, 10.0, log=True)
    return _float(0.9, 0.999) if default >= 0.9 else _float(min(0.1, default), 1.0)


def _depth(argument: Argument) -> Domain:
    default = int(_number(argument) or 8)
    return _int(2, max(16, default * 2))


def _steps(argument: Argument) -> Domain | None:
    """Warm-up in steps: up to twice the default; nothing to go by where that is 0."""
    default = _number(argument)
    if default is None:
        return None
    return _float(0.0, 0.2) if default < 1 else _int(0, int(default) * 2)


def _betas(argument: Argument) -> Domain | None:
    if argument.kind != "list":
        return None
    return {"type": "choice", "values": [[0.9, 0.999], [0.9, 0.98], [0.9, 0.95]], "format": "repeat"}


#: Patterns of names, separated by blanks, with their rule; the first that fits counts.
_RULES: Final[tuple[tuple[str, Rule], ...]] = (
    (
        r"(\w+_)?(lr|learning_rate)(_(init|\d|head|backbone|encoder|decoder|actor|critic|g|d))? eta eta0",
        _scale(100, 10, low=1e-5, high=1e-1, most=1.0),
    ),
    (r"weight_?decay wd wdecay l[12](_\w+)?", _scale(100, 10, low=1e-6, high=1e-1, most=1.0)),
    (r"lam(bda)?_?\w* reg(ularization)?(_\w+)? ridge", _scale(100, 100, low=1e-6, high=10.0)),
    (r"(\w+_)?(dropout|drop(_?(rate|prob|path))?|p_drop)(_\w+)?", _between(0.0, 0.5)),
    (r"((bn|nesterov)_)?momentum mom", _between(0.5, 0.99)),
    (r"(adam_)?beta_?1", _between(0.8, 0.99)),
    (r"(adam_)?beta_?2", _between(0.9, 0.999)),
    (r"(adam_)?betas", _betas),
    (r"(adam_)?eps(ilon)?", _scale(100, 100, low=1e-9, high=1e-6)),
    (r"(\w+_)?(batch_?size|bsz?|batch|minibatch(_size)?)(_\w+)?", _doublings(2, 2, default=64)),
    (
        r"""
        (n_?|num_?|d_?)?(hidden|hid|emb|embd|embed|embedding)(_?(sizes?|dims?|units|channels|width|features|s))?
        hidden_layer_sizes
        emsize d_(model|ff|inner) width units (n_|num_)?(channels|filters|neurons) ffn_?\w*
        (latent|z|model)_dim nz ndf ngf dim base_channels planes rnn_size layer_size
        """,
        _doublings(2, 1, default=128),
    ),
    (r"(n_?|num_?)(\w+_)?(layers?|blocks) (enc_|dec_)?layers depth", _around(2, 2, low=1, high=4)),
    (r"(label_)?smoothing mixup(_alpha)? cutmix(_alpha)?", _between(0.0, 0.3)),
    (r"warmup_(ratio|fraction|proportion|frac)", _between(0.0, 0.2)),
    (r"(\w+_)?warmup(_\w+)?", _steps),
    (r"vf_coef", _between(0.1, 1.0)),
    (r"gae_lambda", _between(0.8, 1.0)),
    (r"clip_(range|eps|coef|epsilon)", _between(0.1, 0.4)),
    (
        r"(grad_?|gradient_?)?(clip|clip_?norm|clip_?grad|clipping|clip_val)(_\w+)? max_(grad_)?norm",
        _scale(10, 10, low=0.1, high=10.0),
    ),
    (r"gamma lr_(gamma|decay|decay_rate) decay discount(_factor)? ema(_decay)?", _gamma),
    (
        r"alphas? beta tau polyak temp(erature)? noise(_\w+)? sigma std ent(ropy)?_coef kl_weight margin",
        lambda argument: guess(argument) or _float(1e-3, 1.0, log=True),
    ),
    (r"c svm_c cost", _scale(100, 100, low=1e-3, high=1e3)),
    (r"(n_|num_)?(estimators|trees) ntree", _around(4, 4, low=10, high=500, log=True)),
    (r"max_depth tree_depth", _depth),
    (r"(num|max)_leaves max_leaf_nodes", _ints(8, 256, log=True)),
    (r"min_samples_(split|leaf) min_child_samples min_data_in_leaf nodesize", _ints(2, 20)),
    (r"min_child_weight", _ints(1, 10)),
    (
        r"(sub|col)_?sample(_?by\w+)? colsample_\w+ (bagging|feature)_fraction max_samples max_features",
        _between(0.5, 1.0),
    ),
    (r"(n_)?neighbou?rs k", _ints(1, 30)),
    (r"degree", _ints(1, 5)),
    (r"tol", _scale(100, 100, low=1e-6, high=1e-2)),
    (r"lora_(r|rank)", _doublings(2, 2, default=8)),
    (r"lora_alpha", _doublings(1, 2, default=16)),
    (r"kernel_size ksize", lambda argument: {"type": "ordinal", "values": [3, 5, 7]}),
    (r"(n_?|num_?)(restarts|components)", _ints(1, 10)),
)


def _names(patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns.split()))


_COMPILED: Final = [(_names(patterns), rule) for patterns, rule in _RULES]
#: Worth a search where the program lists their values.
_LISTED: Final = _names(
    r"""
    opt(im(i[sz]er)?)?(_\w+)? act(ivation)?(_fn|_fun)? nonlin\w* loss(_\w+)? criterion penalty solver kernel
    (lr_)?sched(uler|ule)?(_\w+)? norm(ali[sz]ation)?(_layer)? pool(ing)? init(iali[sz]ation)? model(_type)?
    arch(itecture)? weights metric booster cell(_type)? rnn(_type)? method algorithm decay_type
    backbone variant
    """
)
#: Bounds of schedules, and what does not change the training.
_NEVER: Final = _names(
    r"(min|final|end|max|base)_lr lr_(min|max|end|final) (test|val|valid|eval)_(batch_size|bs|batch)"
)
#: Booleans worth a search.
_SWITCHES: Final = _names(
    r"""
    nesterov amsgrad tied? (tied?|tie)_weights (use_)?(bias|batch_?norm|bn|layer_?norm|ln|norm|residual|ema)
    (data_)?aug(ment(ation)?)? normali[sz]e standardi[sz]e bootstrap fit_intercept shuffle bidirectional
    cosine(_lr)? decay_lr (use_)?attention whiten adaptive shrinking pre_?norm mixup cutmix
    """
)


def domain_of(argument: Argument) -> Domain | None:
    """The range to search; None where the name says nothing about one."""
    name = normalised(argument.name)
    if _NEVER.fullmatch(name):
        return None
    if argument.kind == "bool":
        if not _SWITCHES.fullmatch(name) or "" in argument.truth:
            return None
        return [True, False]
    if len(argument.choices) > 1 and not all(isinstance(value, bool) for value in argument.choices):
        return list(argument.choices) if _LISTED.fullmatch(name) or _rule(name) else None
    if argument.kind == "text" and argument.default is not None:
        return None
    rule = _rule(name)
    domain = rule(argument) if rule is not None else None
    if isinstance(domain, dict) and argument.kind == "list" and "format" not in domain:
        return None
    if isinstance(domain, dict) and argument.kind == "int" and domain.get("type") == "float":
        return _whole(domain)
    return domain


def _whole(domain: dict[str, Any]) -> Domain | None:
    """The range in whole numbers, as the program takes no others."""
    low, high = max(1, math.ceil(domain["low"])), math.floor(domain["high"])
    return {**domain, "type": "int", "low": low, "high": high} if low < high else None


def _rule(name: str) -> Rule | None:
    return next((rule for pattern, rule in _COMPILED if pattern.fullmatch(name)), None)


def guess(argument: Argument) -> Domain | None:
    """A range for a number of an unknown name: around its default, which may be a share of one."""
    default = _number(argument)
    if default is None or argument.choices:
        return None
    if argument.kind == "float" and 0.1 < default < 1:
        return _float(_round(default / 10), 1.0)
    if argument.kind == "float":
        return _float(_round(default / 10), _round(default * 10), log=True)
    if argument.kind == "int":
        return _int(max(1, int(default) // 4), max(2, int(default) * 4), log=default >= 16)
    return None
