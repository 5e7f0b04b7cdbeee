"""The old place of :func:`nnunetv2_d2net.base.text.markdown_table`."""

from nnunetv2_d2net.base.text import markdown_table

__all__ = ["markdown_table"]
