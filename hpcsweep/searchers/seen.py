"""Which configurations of a finite space were proposed already."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from hpcsweep.core.domains import json_key
from hpcsweep.core.events import Config


def config_key(config: Config) -> Hashable:
    """Equal for equal configurations, whatever the order of their names."""
    return json_key(config)


class SeenConfigs:
    """Keys of the proposed configurations, for a history that mostly grows at its end.

    A memory of what was computed and no state of the search: the answer depends on the argument
    alone. Configurations that were there at the last call are only compared.

    Attributes:
        generation: Counts the histories that were no continuation of the one before.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._configs: list[Config] = []
        self._keys: set[Hashable] = set()

    def keys(self, configs: Sequence[Config]) -> set[Hashable]:
        """Keys of all `configs`; not to be changed by the caller."""
        known = len(self._configs)
        if known > len(configs) or self._configs != list(configs[:known]):  # quick for the same objects
            self._configs, self._keys, known = [], set(), 0
            self.generation += 1
        for config in configs[known:]:
            self._configs.append(config)
            self._keys.add(config_key(config))
        return self._keys
