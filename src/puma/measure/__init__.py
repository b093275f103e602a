"""What requests cost and how good their answers are: benchmarks, forecasts, evaluations, range checks."""
