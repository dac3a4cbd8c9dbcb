"""Environment files that systemd and a POSIX shell read alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def fault(settings: Mapping[str, object], reserved: Collection[str] = ()) -> str:
    """Say in one sentence what is wrong with a team's own settings; empty if nothing is.

    Values are never named: they may be secrets.
    """
    for name, value in settings.items():
        if not _NAME.fullmatch(str(name)):
            return (
                f"celery_app_environment has the name {name!r}, which no environment variable can "
                "have: use letters, digits and underscores."
            )
        if name in reserved:
            return (
                f"celery_app_environment sets {name}, which the roles set themselves: use the "
                "role's variable for it (see the README of celery_app and celery_worker)."
            )
        if value is None or isinstance(value, (dict, list)) or "\n" in str(value):
            return (
                f"celery_app_environment gives {name} a value that is not one line of text: write "
                "it as one string."
            )
    return ""


def render(settings: Mapping[str, object]) -> str:
    """Write settings as lines of NAME="value", for EnvironmentFile= and for `.` of a shell.

    Inside double quotes both take a backslash before these four characters alone.
    """
    return "".join(
        '{}="{}"\n'.format(name, re.sub(r'(["\\`$])', r"\\\1", str(value)))
        for name, value in settings.items()
    )


class FilterModule:
    """The filters of the role."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by their names in templates."""
        return {"celery_environment": render, "celery_environment_fault": fault}
