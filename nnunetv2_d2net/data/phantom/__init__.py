"""Synthetic brains with gliomas: real anatomy, a grown tumor, and images from the MR signal equations.

``case.simulate_case`` makes one case in memory, ``varied.simulate_varied_case`` one to learn from for real patients,
``dataset.write_phantom`` makes a whole nnU-Net raw data set, and ``contrast`` measures how much one voxel of one
modality already gives away. Nothing here is clinically accurate: the
phantom replaces a data set whose download needs a registration, for demonstrations and tests only.
"""
