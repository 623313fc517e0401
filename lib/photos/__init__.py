"""Photos: a data set from a folder, from TFDS or drawn, its cache and its slices."""
