"""Data sets: converted from what people have, inspected, simulated."""
