"""SAR ship detection (paper 01): network, loss, task, training and simulator."""
