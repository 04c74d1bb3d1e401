"""What the README's figures come from: `python -m benchmarks.driver`, `.startup`, `.replay`."""
