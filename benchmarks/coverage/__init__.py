"""Real models, protected and plain: who passes, how much is offloaded, who is refused and why.

    python -m benchmarks.coverage run        every family, in processes of their own; results as JSON lines
    python -m benchmarks.coverage page       docs/coverage.md from the results

timm and transformers are needed here and nowhere else in Tempo: `make coverage` installs them in an
environment of their own.
"""
