"""The ways an image can lie in a patient, by their letters; apart from what turns images: plans are read without it."""

from itertools import permutations, product

ORIENTATION = "d2net_orientation"
"""Key of a model's plans: how its training data lie. nnU-Net passes it over, and copies plans beside every model."""

ORIENTATIONS = frozenset("".join(axes) for sides in product("LR", "PA", "IS") for axes in permutations(sides))
"""All 48: to which side of the patient the voxel axes x, y and z run."""
