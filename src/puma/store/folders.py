"""Private folders on disk: who may look in, what is still being written, and where a folder's bytes really lie.

Whatever is being written lies under a name of its own, locked by its writer, and gets its final name by one rename when
it is complete. What a dead writer left is cleaned up by whoever opens the folder next. This file must not know what
is kept.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from puma.errors import StoreError

INCOMING = ".incoming-"
MEMORY_FOLDER = "/dev/shm"  # what is written there stays in memory
MEMORY = {0x01021994: "tmpfs", 0x858458F6: "ramfs"}  # file systems that live in memory, by statfs f_type
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def private_folder(path: Path) -> Path:
    """The folder, made with mode 0700 if it is not there; refused if it is another user's or open to others."""
    with explained(f"the folder {path}"):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise StoreError(f"{path} is no folder", "choose another place")
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise StoreError(f"{path} is open to other users", f"make it yours alone: chmod 700 {path}")
    return path


def checked_name(name: str) -> str:
    """The name, if it can be a file's and leads nowhere else."""
    if not NAME.fullmatch(name):
        raise StoreError(f"{name[:100]!r} is no name for a model", "use letters, digits, dots, dashes and underscores")
    return name


def of_user(variable: str, *otherwise: str) -> Path:
    """The folder that a variable names, or else this one in the user's home; StoreError for a user without a home."""
    try:
        return Path(os.environ.get(variable) or Path.home().joinpath(*otherwise))
    except RuntimeError:
        raise StoreError("this user has no home", f"set {variable} to a folder") from None


def in_memory(path: Path) -> bool:
    """Whether what is written there stays in memory and never reaches a disk (swap aside)."""
    room = ctypes.create_string_buffer(512)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(path), room):
        raise StoreError(f"cannot look at {path}: {os.strerror(ctypes.get_errno())}", "choose another place")
    return ctypes.c_long.from_buffer(room).value in MEMORY


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn the system's errors into ours."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StoreError(f"no room for {what} ({error.strerror})", "free some, or choose another place") from error
        raise StoreError(f"cannot read or write {what}: {error.strerror or error}", "look at the folder") from error


class Incoming:
    """A file or folder that is being written, under a locked name of its own, until `keep` renames it."""

    def __init__(self, parent: Path, folder: bool) -> None:
        self.path = parent / (INCOMING + os.urandom(8).hex())
        with _locked(parent):  # so that nobody takes it for a dead writer's before it is locked
            if folder:
                self.path.mkdir(mode=0o700)
                self.fd = os.open(self.path, os.O_RDONLY)
            else:
                self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(self.fd, fcntl.LOCK_EX)

    def keep(self, path: Path) -> None:
        """Make it visible under its final name, durably; `path` must not be there."""
        os.fsync(self.fd)
        os.rename(self.path, path)
        sync(path.parent)
        self.close()

    def discard(self) -> None:
        """Leave nothing behind; harmless after `keep`."""
        remove(self.path)
        self.close()

    def close(self) -> None:
        """Throw away what was not kept."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def sweep(parent: Path) -> None:
    """Remove what writers that are no more have left half-way."""
    with _locked(parent):
        for path in parent.glob(INCOMING + "*"):
            fd = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(path)
            except BlockingIOError:
                pass  # its writer lives
            finally:
                os.close(fd)


def remove(path: Path) -> None:
    """Delete a file or a folder; nothing if it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def retire(path: Path) -> None:
    """Delete a folder that others may be looking for: it is gone at once, whatever happens meanwhile."""
    doomed = path.with_name(INCOMING + os.urandom(8).hex())
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, doomed)
        remove(doomed)


def write_new(path: Path, content: bytes) -> None:
    """A new file with mode 0600, on disk when this returns."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def kept_secret(path: Path, size: int) -> bytes:
    """Random bytes from the operating system that stay the same once they are there."""
    private_folder(path.parent)
    with explained(f"the secret {path}"):
        with contextlib.suppress(FileExistsError):
            write_new(path, os.urandom(size))
        found = path.read_bytes()
    if len(found) != size:
        raise StoreError(f"the secret {path} is damaged", "delete it; what was stored under it is shared again")
    return found


def sync(folder: Path) -> None:
    """Make renames within a folder durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
