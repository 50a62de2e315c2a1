"""Damaged files for every reader of what users bring: a sound result comes out, or one line that says what is wrong.

`SEGAPP_FUZZ=100000 uv run pytest -m fuzz` tries more of them than the tests do, `python -m tests.fuzz KIND NUMBER` one
again, with its traceback. What a case holds follows from its kind and number alone.
"""
