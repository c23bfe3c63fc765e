"""What the metrics of engines mean: one page of Prometheus text at a time, and one table per engine."""
