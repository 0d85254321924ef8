"""What the package costs and how true its profiles are, measured. Each file runs: `python -m benchmarks.<name>`."""
