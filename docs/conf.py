"""Sphinx configuration."""

from __future__ import annotations

import re
from pathlib import Path

_version = re.search(
    r'__version__ = "(.+)"', Path(__file__).parent.parent.joinpath("snncompile/__init__.py").read_text()
)
assert _version is not None

project = "snncompile"
author = "The snncompile developers"
version = release = _version[1]
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"snncompile {release}"
nitpicky = True
