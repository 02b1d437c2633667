"""`python -m inreach_fast.cli`: the same as the installed command `inreach`."""

from __future__ import annotations

import sys

from .main import main

sys.exit(main())
