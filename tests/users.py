"""Act as an ordinary user: root may read everything, whatever the permissions are."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

#: Users and a group that need not exist.
ADA: Final = 54321
BOB: Final = 54322
GROUP: Final = 54320

IS_ROOT: Final = os.geteuid() == 0


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike those that pytest makes."""
    folder = Path(tempfile.mkdtemp(prefix="users-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def as_user(action: Callable[[], Any], *, user: int = ADA, umask: int = 0o022) -> Any:
    """What the action gives in a process of this user; whoever is not root stays who they are.

    Args:
        action: Gives something that can be pickled.
        user: The user id; all are in `GROUP`.
        umask: Of the process.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read)
            os.umask(umask)
            if IS_ROOT:
                os.setgroups([GROUP])
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(action(), pipe)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, "see the traceback"
    return pickle.loads(data)


def give(path: Path, user: int, group: int | None = None) -> None:
    """Make the user the owner of everything below the path."""
    for found in [path, *path.rglob("*")]:
        os.chown(found, user, user if group is None else group, follow_symlinks=False)
