"""One patient: from the sequences there are to a segmentation that says how far to trust it."""
