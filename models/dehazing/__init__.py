"""Dehazing with DWTMA-Net (paper 07): network, training data, training, task."""
