"""The losses of D2-Net: pure functions of tensors, and the weighted total."""
