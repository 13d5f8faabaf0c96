"""Benchmark reports: what a run's JSON holds, its tables, its page, and the comparison of several."""
