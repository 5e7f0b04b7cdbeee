"""Scores of predictions, for every subset of the modalities."""
