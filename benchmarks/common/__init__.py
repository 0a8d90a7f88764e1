"""The benchmarks' common code. A script finds it beside itself: `from common.timing import ...`."""
