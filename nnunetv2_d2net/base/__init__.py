"""What every room stands on: errors, files, processes, images, the data set. It imports nothing of ours."""
