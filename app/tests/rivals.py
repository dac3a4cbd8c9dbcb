"""Other brokers that this transport is compared with, each a server process of its own.

`scripts/bootstrap.sh rivals` installs what they need.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from scheduler import processes

__all__ = ["RabbitMQServer", "RedisServer", "Server"]


class Server:
    """A server process in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = processes.free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def environ(self) -> dict[str, str]:
        return {}

    def start(self) -> None:
        with (self.directory / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                env={**os.environ, **self.environ()},
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=processes.dies_with_parent(),
            )
        deadline = time.monotonic() + 120
        while not processes.listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(processes.tail(self.directory / "broker.log"))
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class RedisServer(Server):
    """Redis with an append-only file, written once a second (its advice for durability)."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        return [
            "redis-server", "--port", str(self.port), "--dir", str(self.directory),
            "--appendonly", "yes", "--bind", "127.0.0.1",
        ]  # fmt: skip


class RabbitMQServer(Server):
    """RabbitMQ, one node."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._distribution, self._epmd = processes.free_port(), processes.free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def command(self) -> list[str]:
        # Not /usr/sbin's script: that one changes to the user rabbitmq.
        scripts = Path("/usr/lib/rabbitmq/lib").glob("*/sbin/rabbitmq-server")
        return [str(next(scripts, shutil.which("rabbitmq-server") or "rabbitmq-server"))]

    def environ(self) -> dict[str, str]:
        home = str(self.directory)
        (self.directory / "enabled_plugins").write_text("[].\n")
        return {
            "HOME": home,
            "RABBITMQ_NODENAME": f"rival{self.port}@{socket.gethostname().split('.')[0]}",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_BASE": home,
            "RABBITMQ_MNESIA_BASE": f"{home}/mnesia",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_LOGS": f"{home}/log/node.log",
            "RABBITMQ_PID_FILE": f"{home}/pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq",
            "RABBITMQ_SCHEMA_DIR": f"{home}/schema",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{home}/config",
            "ERL_EPMD_PORT": str(self._epmd),
        }

    def stop(self) -> None:
        super().stop()
        # Its port mapper is a daemon, and would outlive it.
        mapper = ["epmd", "-port", str(self._epmd), "-kill"]
        subprocess.run(mapper, check=False, capture_output=True)
