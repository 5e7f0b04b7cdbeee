"""The network of D2-Net, as modules that build on nnU-Net's planned U-Net."""
