"""The side that nnU-Net sees: planning, preprocessing, training, prediction, and how all of it is found."""
