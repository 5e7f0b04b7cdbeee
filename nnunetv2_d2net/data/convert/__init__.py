"""From the folders that people have to a raw data set of nnU-Net, and from predictions back to their label values."""
