"""Measuring: scores, benchmarks, reports, and the demo."""
