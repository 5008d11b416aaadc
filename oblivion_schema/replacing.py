"""Replace a file at once: whoever reads it meanwhile, or after a crash, sees the old one or the new one."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oblivion_schema.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NEW_FILE_MODE: Final = 0o600  # it may have passwords, or name users


def require_writable(path: Path) -> None:
    """Raise UserError if the file could not be replaced."""
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise UserError(f"{path} cannot be written: it is no file. Name another one.")
    if not target.parent.is_dir():
        raise UserError(f"{path} cannot be written: its folder does not exist. Make it first.")
    if not os.access(target.parent, os.W_OK):
        raise UserError(f"{path} cannot be written: its folder is not writable. Change that first.")


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process at a time rewrites the files of a folder; Windows has no such lock."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def replace(path: Path, text: str) -> None:
    """Replace a file at once, and keep its mode and, where we may, its owner. Of a symbolic link, give its target."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            mode = _NEW_FILE_MODE
            if path.exists():
                status = path.stat()
                mode = status.st_mode & 0o7777
                with suppress(OSError, AttributeError):
                    os.chown(temporary, status.st_uid, status.st_gid)
            Path(temporary).chmod(mode)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}. Run the command again once it can.") from None
