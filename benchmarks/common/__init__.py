"""What the benchmarks share. A script finds it beside itself: `from common.timing import ...`."""
