"""The links of a dashboard's panels to the pages of alerts."""

from __future__ import annotations

import json
from collections.abc import Callable

#: What stands in the dashboards for the address at which people read the repository.
READ_AT = "https://runbooks.invalid"


def runbook_links(dashboard: str, url: str) -> str:
    """Have the links of a dashboard, as JSON, lead to `url`; where it is empty, take them out."""
    if url:
        return dashboard.replace(READ_AT, url.rstrip("/"))
    board = json.loads(dashboard)
    for panel in board["panels"]:
        panel["links"] = [
            link for link in panel.get("links", ()) if not link["url"].startswith(READ_AT)
        ]
    return json.dumps(board, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


class FilterModule:
    """The filter of the role."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filter by its name in templates."""
        return {"runbook_links": runbook_links}
