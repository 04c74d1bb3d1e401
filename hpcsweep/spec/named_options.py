"""Searchers, schedulers and stopping rules: a name and the options of its constructor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from hpcsweep import schedulers, searchers
from hpcsweep.core.text import format_value, suggest_name
from hpcsweep.options import options_model
from hpcsweep.schedulers.stopping_rules import STOP_RULES
from hpcsweep.spec.problems import Problems


class Kind(NamedTuple):
    """One kind of things that a spec names.

    Attributes:
        names: All names, those of installed packages included; the first one is the default.
        load: The class of a name.
        supplied: Parameters of its constructor that are not options.
    """

    names: Callable[[], list[str]]
    load: Callable[[str], Callable[..., Any]]
    supplied: tuple[str, ...]

    def model(self, name: str) -> type[BaseModel]:
        """The options of the class of that name."""
        return options_model(self.load(name), self.supplied)


SEARCHER: Final = Kind(searchers.searcher_names, searchers.searcher_class, searchers.SUPPLIED)
SCHEDULER: Final = Kind(schedulers.scheduler_names, schedulers.scheduler_class, schedulers.SUPPLIED)
STOP_RULE: Final = Kind(lambda: list(STOP_RULES), STOP_RULES.__getitem__, ("minimise",))


class NamedOptions(BaseModel):
    """A searcher, scheduler or stopping rule by name, with all its options."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As written in YAML."""
        return {"name": self.name, **self.options}


class SearcherChoice(NamedOptions):
    """A searcher by name, with its seed and all its options."""

    seed: int = 0

    def plain(self) -> dict[str, Any]:
        """As written in YAML."""
        return {"name": self.name, "seed": self.seed, **self.options}


def split_name(raw: Any, path: str, kind: Kind, problems: Problems) -> tuple[str, dict[str, Any]] | None:
    """Name and options of a section that may be a name alone; None after adding a problem."""
    if raw is None or isinstance(raw, str):
        raw = {"name": raw} if raw else {}
    if not isinstance(raw, Mapping):
        problems.add(path, f"must be a name or a mapping with a name, got {format_value(raw)}")
        return None
    options = {str(option): value for option, value in raw.items()}
    name = options.pop("name", kind.names()[0])
    if not isinstance(name, str):
        problems.add(f"{path}.name", f"must be text, got {format_value(name)}")
        return None
    if name not in kind.names():
        problems.add(f"{path}.name", suggest_name(name, kind.names(), kind=f"name {name!r}"))
        return None
    return name, options


def read_options(
    name: str,
    options: Mapping[str, Any],
    path: str,
    kind: Kind,
    problems: Problems,
    *,
    other_keys: tuple[str, ...] = (),
) -> dict[str, Any] | None:
    """All options, defaults included; None after adding problems.

    Args:
        name: A known name.
        options: As given.
        path: The key path of the section.
        kind: Of the section.
        problems: Collects what is wrong.
        other_keys: Keys of the section that are read elsewhere, for the message about an unknown key.
    """
    try:
        model = kind.model(name)
    except Exception as error:  # another package's code
        problems.add(f"{path}.name", f"{name!r} cannot be imported: {type(error).__name__}: {error}")
        return None
    section = problems.validated(model, options, path=path, also_known=("name", *other_keys))
    return None if section is None else section.model_dump()
