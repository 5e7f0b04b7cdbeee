"""The old place of :func:`nnunetv2_d2net.study.scores.evaluate.read_scores`."""

from nnunetv2_d2net.study.scores.evaluate import read_scores

__all__ = ["read_scores"]
