"""Everything that measures Puma; `python -m benchmarks` makes every published table and plot.

Nothing under src/ knows of this package.
"""
