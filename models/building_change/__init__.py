"""Building change with SSA-Net (paper 08): network, training data, training, task."""
