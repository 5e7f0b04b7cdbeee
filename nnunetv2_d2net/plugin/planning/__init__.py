"""Planners: nnU-Net's own, with D2-Net's memory in mind."""
