"""Runs the Python code blocks of the documentation as tests."""

from __future__ import annotations

import os

from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser, SkipParser

# read when torch is loaded: threads that wait by spinning make a test a hundred times slower where others work as well
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/decisions/*.md"],
).pytest()
