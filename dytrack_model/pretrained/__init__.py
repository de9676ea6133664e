"""Published weights: their files, the names of their tensors, and how they enter our network."""
