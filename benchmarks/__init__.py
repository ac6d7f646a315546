"""What xorbit costs: ratios to a ceiling or to itself, all from one run. `python -m benchmarks`."""
