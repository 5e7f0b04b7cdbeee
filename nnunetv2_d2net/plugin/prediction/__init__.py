"""Prediction with any subset of the modalities."""
