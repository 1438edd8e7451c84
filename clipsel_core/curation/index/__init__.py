"""The order and the bins of a run's metrics: what makes a count and a page take a moment."""
