"""Cases turned the way that a model's training data lie, before nnU-Net preprocesses them, and back when it writes."""

import functools
from collections.abc import Mapping
from typing import Any

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from numpy.typing import NDArray

from nnunetv2_d2net.base.images import check_name
from nnunetv2_d2net.base.orientation import (
    TURNED,
    orientation_of,
    own_place,
    turn,
    turn_place,
    turned_back,
)
from nnunetv2_d2net.base.sides import ORIENTATION


def as_trained(
    data: NDArray[Any], seg: NDArray[Any] | None, properties: dict[str, Any], plans: Mapping[str, Any]
) -> tuple[NDArray[Any], NDArray[Any] | None, dict[str, Any]]:
    """Turn a case the way that the training data lie; it stays as it is where plans or its properties do not say how.

    Args:
        data: ``(M, z, y, x)``.
        seg: ``(1, z, y, x)`` or None.
        properties: nnU-Net's.
        plans: Of the model.

    Returns:
        The three; the properties say where the turned grid lies, and from what it was turned.
    """
    one, other = orientation_of(properties), plans.get(ORIENTATION, "")
    if not one or other in ("", one):
        return data, seg, properties
    turned_seg = None if seg is None else turn(seg, one, other)
    return turn(data, one, other), turned_seg, turn_place(properties, data.shape[1:], other)


def how_trained(plans: Mapping[str, Any]) -> str:
    """Say what happens to the cases of a model: whether they are turned, and to which orientation."""
    if ORIENTATION in plans:
        return f"images that do not lie {plans[ORIENTATION]}, as the training data, are turned, and segmentations back"
    return "the model does not say how its training data lie: no image is turned"


def how_it_lay(properties: Mapping[str, Any], plans: Mapping[str, Any]) -> str:
    """Say of a preprocessed case how it lay, and whether it was turned.

    Example:
        >>> how_it_lay({TURNED: {"from": "RAS", "to": "LPS"}}, {ORIENTATION: "LPS"})
        'RAS, turned to LPS, as the training data lie, and the segmentation back'
        >>> how_it_lay({}, {})
        'not known, not turned: the training data do not say how they lie'
    """
    if turned := properties.get(TURNED):
        return f"{turned['from']}, turned to {turned['to']}, as the training data lie, and the segmentation back"
    trained = f"lie {plans[ORIENTATION]}" if ORIENTATION in plans else "do not say how they lie"
    return f"{orientation_of(properties) or 'not known'}, not turned: the training data {trained}"


class TurningBack(BaseReaderWriter):
    """One of nnU-Net's readers and writers that writes the segmentation of a turned case onto the case's own grid."""

    plain: type[BaseReaderWriter]

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.plain,)  # worker processes cannot import a class made on the way

    def write_seg(self, seg: NDArray[Any], output_fname: str, properties: dict[str, Any]) -> None:
        """Write ``(z, y, x)``, turned back if the properties say that the case was turned.

        Raises:
            ImageError: The file's name is no UTF-8, with which ITK would end the program.
        """
        check_name(output_fname)
        super().write_seg(turned_back(seg, properties), output_fname, own_place(properties))  # pyright: ignore


@functools.cache
def turning_back(reader: type[BaseReaderWriter]) -> type[BaseReaderWriter]:
    """Return a class that reads and writes as one of nnU-Net's, but turns back what was turned."""
    if issubclass(reader, TurningBack):
        return reader
    return type(reader.__name__, (TurningBack, reader), {"plain": reader})


def _restored(plain: type[BaseReaderWriter]) -> BaseReaderWriter:
    return turning_back(plain)()
