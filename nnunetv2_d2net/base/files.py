"""Files: written whole or not at all, read with the reason why not, locked, told apart.

A file that is being written lies in ``.unfinished/MACHINE-PROCESS-RUN/`` beside its place, and gets its name when it is
complete and on the disk. What a killed process has left there is removed by the next one that writes to the folder; on
another machine, which cannot tell, after a day.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.text import last_line, reason_of

T = TypeVar("T")

UNFINISHED = ".unfinished"
"""Folder for files that are not whole yet."""

LOCK = ".d2net.lock"
"""In a folder that a process is writing."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
_FREE_SPACE = "free space or make it writable, then run again"
_RUN = secrets.token_hex(4)  # in containers another process may have had this one's number
_NUMBERS = itertools.count()
_TRIES = 100
_DAY = 86400
_BEHIND_ENDING = re.compile(r"([^.].*?)(\.nii|\.mha|\.mhd|\.nrrd|\.nhdr)(\W.*)", re.IGNORECASE | re.DOTALL)
_NOT_CUT = re.compile(
    r".*\.(?:nii\.gz|nii|mha|mhd|nrrd|nhdr|bz2|xz|zst|zip|7z|rar|json|md5|sha\d*|mat|xml|csv|png|jpe?g|tiff?|bmp|gipl)",
    re.I | re.DOTALL,
)
_JSON_WORDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a whole number"}
_JSON_WORDS |= {float: "a number", type(None): "null"}


@contextlib.contextmanager
def explaining_disk_errors(path: Path, remedy: str = _FREE_SPACE) -> Iterator[None]:
    """Turn a full disk, missing permissions and the like into one line.

    Args:
        path: What is being written.
        remedy: What to do.

    Raises:
        UserError: The disk or a writer has failed; ITK, torch and filelock may tell it by a RuntimeError.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_failed_writing(error):
            raise
        raise UserError(f"{path} cannot be written ({reason_of(error)}): {remedy}") from error


@contextlib.contextmanager
def explaining_full_disk(what: str) -> Iterator[None]:
    """Turn a disk that is full or read-only into one line, whoever was writing which file.

    Args:
        what: Is being done, where the error names no file.

    Raises:
        UserError: It is.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if not (error.errno in _NO_ROOM if isinstance(error, OSError) else _is_failed_writing(error)):
            raise
        where = getattr(error, "filename", None) or f"a file of {what}"
        raise UserError(f"{where} cannot be written ({reason_of(error)}): {_FREE_SPACE}") from error


def _is_failed_writing(error: RuntimeError) -> bool:
    words = ("ITK ERROR", "PytorchStreamWriter", "inline_container", "iostream error", "flock")
    return any(word in str(error) for word in words)


@contextlib.contextmanager
def unfinished_folder(folder: Path) -> Iterator[Path]:
    """Hand out a folder of this process's own, for files that will be moved into ``folder``; then remove it.

    Args:
        folder: Where the files belong; made if it does not exist.

    Raises:
        OSError: It cannot be written.
    """
    parent = folder / UNFINISHED
    own = parent / f"{_machine()}-{os.getpid()}-{_RUN}{next(_NUMBERS)}"
    _make_within(parent, own)
    try:
        _remove_abandoned(parent)
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        with contextlib.suppress(OSError):  # others still write there
            parent.rmdir()


def _make_within(parent: Path, own: Path) -> None:
    for attempt in range(_TRIES):
        try:
            parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):  # it is another user's
                shutil.copymode(parent.parent, parent)  # whoever may write to the folder may do so here
            own.mkdir()
            return
        except (FileNotFoundError, FileExistsError):  # a process that has finished has just removed the parent
            if attempt == _TRIES - 1:
                raise


def _machine() -> str:
    """Name what the numbers of processes belong to: a machine, or a container of the same name on it."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()}.{Path('/proc/self/ns/pid').stat().st_ino}"
    return socket.gethostname()


def _remove_abandoned(parent: Path) -> None:
    """Remove what processes have left that are no longer there."""
    for path in parent.glob("*-*-*"):
        with contextlib.suppress(OSError):  # another process removes it, too
            if _is_abandoned(path):
                shutil.rmtree(path)


def _is_abandoned(path: Path) -> bool:
    machine, process, run = path.name.rsplit("-", 2)
    if machine != _machine():
        return time.time() - path.stat().st_mtime > _DAY
    if process == str(os.getpid()):
        return not run.startswith(_RUN)
    return process.isdecimal() and not _is_alive(int(process))


def _is_alive(process: int) -> bool:
    if os.name == "nt":
        return True  # asking as below would end it
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def written_whole(path: Path, remedy: str = _FREE_SPACE) -> Iterator[Path]:
    """Hand out a name to write a file under, and give the file its own name once it is whole and on the disk.

    Args:
        path: The file; what is there stays as it is until the new one is complete.
        remedy: What to do where it cannot be written.

    Raises:
        UserError: It cannot be written.
    """
    with explaining_disk_errors(path, remedy), unfinished_folder(path.parent) as folder:
        unfinished = folder / path.name
        yield unfinished
        publish(unfinished, path)


def publish(unfinished: Path, path: Path) -> None:
    """Move a complete file or folder to its place, a file after it has reached the disk."""
    if unfinished.is_file() and not unfinished.is_symlink():
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
    unfinished.replace(path)


def write_text(path: Path, text: str, remedy: str = _FREE_SPACE) -> None:
    """Write a text file whole or not at all, in UTF-8; one that says just this already is left as it is.

    Raises:
        UserError: It cannot be written.
    """
    data = _encoded(text)
    with contextlib.suppress(OSError):
        if path.read_bytes() == data:
            return
    with written_whole(path, remedy) as unfinished:
        unfinished.write_bytes(data)


def _encoded(text: str) -> bytes:
    return text.encode(errors="backslashreplace")  # file names may hold bytes that are no text


def write_json(path: Path, content: object, remedy: str = _FREE_SPACE, *, indent: int | None = 2) -> None:
    """Write a JSON file whole or not at all; the order of keys is kept.

    Raises:
        UserError: It cannot be written.
    """
    write_text(path, json.dumps(content, indent=indent) + "\n", remedy)


def append_text(path: Path, text: str, remedy: str = _FREE_SPACE) -> None:
    """Add to a text file, at once.

    Raises:
        UserError: It cannot be written.
    """
    with explaining_disk_errors(path, remedy), path.open("ab") as file:
        file.write(_encoded(text))


def append_json_line(path: Path, content: object, remedy: str = _FREE_SPACE) -> None:
    """Add one line to a journal, at once and in a way that survives being killed.

    Raises:
        UserError: It cannot be written.
    """
    append_text(path, f"\n{json.dumps(content)}", remedy)  # the break comes first: a cut line spoils no other


def read_json(path: Path, remedy: str, needs: Mapping[str, type | tuple[type, ...]] | None = None) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        remedy: What to do where it cannot be used.
        needs: Keys that it must have, and the Python type of each one's value.

    Raises:
        UserError: It is missing, no UTF-8, no JSON, no object, or lacks a key; path and key are named.
    """
    content = read_json_value(path, remedy)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {_json_word(content)}, not an object: {remedy}")
    for key, kinds in (needs or {}).items():
        check_key(content, key, kinds, str(path), remedy)
    return content


def read_json_value(path: Path, remedy: str) -> Any:  # noqa: ANN401 - whatever the file holds
    """Read a JSON file of any content.

    Raises:
        UserError: It is missing, no UTF-8 or no JSON.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if text.startswith("\ufeff"):
            raise UserError(
                f"{path} begins with a byte order mark (save it as UTF-8 without, as nnU-Net wants): {remedy}"
            )
        return json.loads(text)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 (byte {error.start}): {remedy}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is no JSON (line {error.lineno}: {error.msg}): {remedy}") from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply: {remedy}") from error
    except ValueError as error:  # a number of more digits than Python takes
        raise UserError(f"{path} is no JSON ({last_line(error)}): {remedy}") from error


def check_key(content: Mapping[str, Any], key: str, kinds: type | tuple[type, ...], where: str, remedy: str) -> None:
    """Refuse an object that lacks a key, or holds a value of another type under it.

    Args:
        content: The object.
        key: What it must have.
        kinds: Python types of the value, of those that JSON has; True and False are no numbers.
        where: The file, and the way into it.
        remedy: What to do.

    Raises:
        UserError: It does.
    """
    if key not in content:
        raise UserError(f'{where} lacks "{key}": {remedy}')
    value, allowed = content[key], kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        expected = " or ".join(_JSON_WORDS[kind] for kind in allowed)
        raise UserError(f'{where}: "{key}" is {_json_word(value)}, not {expected}: {remedy}')


def _json_word(value: object) -> str:
    return _JSON_WORDS.get(type(value), type(value).__name__)


def read_json_or(path: Path, default: T) -> T:
    """Read what a program noted for itself; the default where there is none, or it was cut short or is of another type.

    Args:
        path: The file.
        default: Also says which type is wanted; None accepts any.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return default
    return content if default is None or isinstance(content, type(default)) else default


def read_json_lines(path: Path) -> list[Any]:
    """Read a journal; lines that were cut short are passed over, and a file that is not there is empty."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in filter(None, lines):
        with contextlib.suppress(ValueError, RecursionError):
            found.append(json.loads(line))
    return found


def make_folder(folder: Path, remedy: str = "pass another folder") -> None:
    """Make a folder that can be written.

    Raises:
        UserError: It cannot be made or written.
    """
    with explaining_disk_errors(folder, remedy):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextlib.contextmanager
def locked(path: Path, seconds: float = 10.0) -> Iterator[None]:
    """Let one process at a time do something; the lock goes with the process, however it ends.

    Args:
        path: Of the lock file, which stays.
        seconds: How long to wait for another process.

    Raises:
        UserError: Another process holds it, or it cannot be written.
    """
    with explaining_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=seconds, poll_interval=0.2)
        except Timeout as error:
            raise _held(path) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def locked_folder(folder: Path, part: str = "") -> Iterator[None]:
    """Let one process at a time write a folder; another one is refused at once.

    The folder is made if it does not exist. Nothing stays of the lock, nor of a new folder that has stayed empty.

    Args:
        folder: The folder.
        part: Of its content, where several processes may write different ones.

    Raises:
        UserError: Another process writes it, or it cannot be written.
    """
    is_new = not folder.exists()
    try:
        with _locked_at_once(folder / (f"{LOCK}.{part}" if part else LOCK)):
            yield
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # which it raises where there is a file in it
                folder.rmdir()


@contextlib.contextmanager
def locked_output(path: Path) -> Iterator[None]:
    """Let one process at a time write a file or folder that is not there yet; another one is refused at once.

    Raises:
        UserError: Another process writes it, or its folder cannot be written.
    """
    with _locked_at_once(path.with_name(f".{path.name}{LOCK}")):
        yield


@contextlib.contextmanager
def _locked_at_once(lock: Path) -> Iterator[None]:
    with locked(lock, seconds=0):
        if not lock.exists():  # the process that had it has removed it after we opened it: the next one makes another
            raise _held(lock)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _held(lock: Path) -> UserError:
    return UserError(f"another process holds {lock}: wait for it, or end it")


def whole_name(name: str) -> str:
    """Return an image's name without what a download, a packer or a copy has put behind its ending.

    Images of other formats than NIfTI, MetaImage and NRRD, other archives and what describes an image keep their names.

    Example:
        >>> [whole_name(name) for name in ("t1.nii.gz.part", "t1.nii (1).gz", "t1.nrrd.gz", "t1.nii.gz", "t1.nii.zip")]
        ['t1.nii.gz', 't1.nii.gz', 't1.nrrd', 't1.nii.gz', 't1.nii.zip']
    """
    found = None if _NOT_CUT.fullmatch(name) else _BEHIND_ENDING.fullmatch(name)
    if not found:
        return name
    stem, ending, rest = found.groups()
    return stem + ending + (".gz" if ending.lower() == ".nii" and ".gz" in rest.lower() else "")


def is_left_over(path: Path) -> bool:
    """Tell whether there is a whole file beside one that only begins like its name."""
    whole = path.with_name(whole_name(path.name))
    return whole != path and whole.exists()


def no_file(path: Path) -> str:
    """Say why nothing can be an image's or a segmentation's file; nothing where it may be one."""
    whole = whole_name(path.name)
    if whole != path.name:
        return (
            f"{path} does not end as an image: finish its download, unpack or rename it, so that it is called {whole}"
        )
    if path.is_file():
        return ""
    what = "a folder" if path.is_dir() else "no file (a broken link?)"
    return f"{path} is {what}: put the image there, or remove it"


def file_state(path: Path) -> list[int] | None:
    """Return size and time of the last change (ns), which tell whether a file is the same; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def content_state(path: Path) -> list[int | str]:
    """Return size and SHA-256 of a file, which tell whether it holds the same."""
    return [path.stat().st_size, sha256_of(path)]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
