#!/usr/bin/env python3
"""Ask Prometheus for every panel of every dashboard, and name those that would be empty.

    check_panels.py DASHBOARDS https://monitor1:9090 [--user U --password-file F] [--ca FILE]

Standard library only: it runs on the monitoring host, beside the dashboards that are deployed there.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import ssl
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def queries(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each panel's title and query, with every variable standing for all its values."""
    names = [variable["name"] for variable in dashboard.get("templating", {}).get("list", [])]
    panels = list(dashboard["panels"])
    while panels:
        panel = panels.pop(0)
        panels += panel.get("panels", [])
        for target in panel.get("targets", []):
            query = target["expr"]
            for name in names:
                query = re.sub(rf"\$\{{?{name}\b\}}?", ".*", query)
            yield panel["title"], query


def main() -> int:
    """Return 1 if a panel is empty."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dashboards", type=Path)
    parser.add_argument("url")
    parser.add_argument("--user", default="prometheus")
    parser.add_argument("--password-file", type=Path)
    parser.add_argument("--ca")
    args = parser.parse_args()
    headers = {}
    if args.password_file:
        login = f"{args.user}:{args.password_file.read_text().strip()}"
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    context = ssl.create_default_context(cafile=args.ca) if args.ca else None
    asked, empty = 0, []
    for file in sorted(args.dashboards.glob("*.json")):
        for title, query in queries(json.loads(file.read_text())):
            parameters = urllib.parse.urlencode({"query": query})
            # The address is the operator's own.
            request = urllib.request.Request(  # noqa: S310
                f"{args.url}/api/v1/query?{parameters}", headers=headers
            )
            with urllib.request.urlopen(  # noqa: S310
                request, timeout=30, context=context
            ) as answer:
                found = json.load(answer)["data"]["result"]
            asked += 1
            if not found:
                empty.append(f"{file.stem}: {title}: {query}")
    print("\n".join(empty) or f"None of {asked} queries is empty.")
    return 1 if empty or not asked else 0


if __name__ == "__main__":
    sys.exit(main())
