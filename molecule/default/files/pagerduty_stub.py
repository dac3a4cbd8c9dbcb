"""Stands in for PagerDuty's Events API v2 and a dead man's switch: writes what it is sent, a line each."""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

#: What PagerDuty refuses an event without.
REQUIRED = ("routing_key", "event_action", "dedup_key")


class Handler(BaseHTTPRequestHandler):
    """Answers as PagerDuty does: 202, or 400 with what is wrong."""

    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = 202
        if self.path.startswith("/v2/enqueue"):
            missing = [name for name in REQUIRED if not event.get(name)]
            trigger = event.get("event_action") == "trigger"
            payload = event.get("payload", {})
            if trigger:
                missing += [n for n in ("summary", "source", "severity") if not payload.get(n)]
                if payload.get("severity") not in ("critical", "error", "warning", "info"):
                    missing.append("a severity")
            status = 400 if missing else 202
        line = json.dumps({"path": self.path, "status": status, "at": time.time(), "event": event})
        with Path(sys.argv[2]).open("ab", buffering=0) as file:
            file.write(line.encode() + b"\n")
        self.send_response(status)
        self.end_headers()


Path(sys.argv[2]).touch()
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
