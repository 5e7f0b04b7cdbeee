"""Writing phantom files in parallel, each whole or not at all."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import nibabel
import numpy as np
from numpy.typing import NDArray

from nnunetv2_d2net.base.errors import UserError

Key = TypeVar("Key")
Result = TypeVar("Result")


def run_all(work: Callable[[Key], Result], keys: Sequence[Key], processes: int) -> Iterator[tuple[Key, Result]]:
    """Yield each key with its result as they are ready; with 1 process none is started."""
    if processes <= 1:
        yield from ((key, work(key)) for key in keys)
        return
    with ProcessPoolExecutor(min(processes, len(keys)), mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(work, key): key for key in keys}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def write_volume(partial_folder: Path, path: Path, volume: NDArray, affine: NDArray[np.floating]) -> None:
    """Write ``(z, y, x)`` under a temporary name, then rename: a file under its own name is whole."""
    temporary = partial_folder / f"{os.getpid()}_{path.name}"
    image = nibabel.Nifti1Image(np.ascontiguousarray(volume.T), affine)  # pyright: ignore
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code="mni")
    image.set_sform(affine, code="mni")
    nibabel.save(image, temporary)  # pyright: ignore
    temporary.replace(path)


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file whole or not at all."""
    temporary = path.with_name(f".{os.getpid()}_{path.name}")
    temporary.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    temporary.replace(path)


@contextmanager
def explaining_disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of the disk into one line for the user."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {folder} ({reason}): make room or mend it, then run with --resume") from error
