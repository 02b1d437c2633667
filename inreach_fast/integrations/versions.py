"""Whether a library has the version that its integration was written for."""

from __future__ import annotations

import re
import warnings

from ..errors import IntegrationError, IntegrationWarning


def check_version(library: str, found: str, tested: str) -> None:
    """Compares the version of a library with the tested one, ``MAJOR.MINOR``.

    Raises:
        IntegrationError: another major version. Another minor version is an `IntegrationWarning`.
    """
    numbers = re.match(r"(\d+)\.(\d+)", found)
    major, minor = numbers.groups() if numbers else ("", "")
    tested_major, tested_minor = tested.split(".")
    remedy = f"pip install 'inreach_fast[{library}]' installs one that works"
    if major != tested_major:
        raise IntegrationError(
            f"{library}: version {found}; this integration needs {tested_major}.x; {remedy}", name=library
        )
    if minor != tested_minor:
        text = f"{library}: version {found}; this integration was tested with {tested}; {remedy}"
        warnings.warn(text, IntegrationWarning, stacklevel=3)
