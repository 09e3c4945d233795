"""Coverage-guided fuzzing of what reads foreign bytes: `python -m fuzz`, or `make fuzz`.

`checks_*.py` say what must hold for any input, `seeds.py` where the search begins, `engine.py` runs
one target under atheris in a process of its own, and `__main__.py` runs them all and counts.
"""
