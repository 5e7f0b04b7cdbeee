"""D2-Net itself, network and losses, in torch alone."""
