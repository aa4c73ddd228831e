"""Classical methods as Tasks without torch: the baselines and the fallback where no weights fit."""
