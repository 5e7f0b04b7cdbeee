"""Preprocessing of cases whose modalities are not all there."""
