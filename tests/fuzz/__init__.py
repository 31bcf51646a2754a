"""Coverage-guided fuzzing of everything that reads bytes of strangers; see docs/develop/testing.md.

A target is a function of some bytes that fails when what must hold for all bytes does not. The targets need
nothing but the project: `tests/proto/test_fuzz_findings.py` runs all of them over their seeds and over what
was ever found. Only the search for new inputs needs atheris, and `python -m tests.fuzz` drives it.
"""
