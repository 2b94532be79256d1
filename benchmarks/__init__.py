"""Measures faxbot beside a bare floor, in one interleaved run on one machine: `python -m benchmarks --help`.

`load` is the load program, `selftest` proves it on planted faults, `floor/` is the least that does the same
work with the same framework and servers, `report` keeps the ratios of one run in docs/performance.md.
"""
