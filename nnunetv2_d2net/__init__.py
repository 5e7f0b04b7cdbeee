"""D2-Net for nnU-Net v2: one model for every subset of modalities."""

__version__ = "0.1.0"
