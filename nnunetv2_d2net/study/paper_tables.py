"""The arms of the paper's tables, laid out beside what is printed there."""

from nnunetv2_d2net.plugin.training.paper import ROWS

NOTE = "Dice in percent, mean of 15 subsets, as published for BraTS 2018: another data set, so no comparison in earnest"


def rows_of_tables() -> list[list[str]]:
    """Return a header, and for each row of the paper's tables its trainer and what is printed; dashes for a curve."""
    rows = [["table", "row", "trainer", "WT", "TC", "ET", "mean"]]
    for row in ROWS:
        printed = [f"{dice:.1f}" for dice in row.published] or ["-"] * 4
        rows.append([row.table, row.name, row.trainer, *printed])
    return rows
