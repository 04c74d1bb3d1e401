"""NumPy, imported at its first use.

To import it takes a third of the CPU time of `status`, `stop` or a tick that proposes nothing. Modules that
these load have it from here.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Ints: TypeAlias = NDArray[np.int64]
    Bools: TypeAlias = NDArray[np.bool_]
else:

    class _FirstUse(ModuleType):
        def __getattr__(self, name: str) -> Any:
            found = getattr(importlib.import_module(self.__name__), name)
            setattr(self, name, found)  # from now on no call
            return found

    np = _FirstUse("numpy")
    # For annotations, which nobody reads.
    Floats = Ints = Bools = Generator = Any

__all__ = ["Bools", "Floats", "Generator", "Ints", "np"]
