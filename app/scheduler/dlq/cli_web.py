"""`scheduler dlq web`: the page, and the passwords of those who may see it."""

from __future__ import annotations

import ipaddress
import signal
from pathlib import Path
from typing import Any

import click

from kombu_kafka.errors import ConfigurationError
from scheduler.dlq.cli import EX_CONFIG, Failure, Usage, guarded, read_options, stderr

__all__ = ["COMMANDS"]


@click.command()
@click.option("--listen", default="127.0.0.1:8085", show_default=True, help="Address and port.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    required=True,
    help="Lines of name:hash, from 'scheduler dlq password'.",
)
@click.option("--allow-changes", is_flag=True, help="Offer replay and skip too.")
@click.option(
    "--behind-proxy",
    is_flag=True,
    help="A proxy with TLS is in front; needed to listen beyond loopback.",
)
def web(listen: str, password_file: Path, allow_changes: bool, behind_proxy: bool) -> None:
    """Serve a web page for dead letters; read-only, and on loopback, unless told otherwise."""
    host, port = _address(listen)
    if not behind_proxy and not _loopback(host):
        raise Usage(
            f"--listen {listen} would carry passwords over the network in clear: put a proxy with"
            " TLS in front and say --behind-proxy, or listen on 127.0.0.1."
        )
    try:
        import waitress

        from scheduler.dlq.web.gate import Passwords
        from scheduler.dlq.web.pages import make_app
    except ImportError as exc:
        raise Failure(
            f"The page needs Flask and waitress ({exc}): pip install 'kombu-kafka[web]'.", EX_CONFIG
        ) from exc
    with guarded():
        options = read_options()
        app = make_app(
            options,
            Passwords(password_file),
            allow_changes=allow_changes,
            behind_proxy=behind_proxy,
        )
        try:
            server: Any = waitress.create_server(
                app,
                host=host,
                port=port,
                threads=4,
                ident=None,
                clear_untrusted_proxy_headers=False,
            )
        except OSError as exc:
            raise ConfigurationError(f"Nothing can listen on {listen}: {exc.strerror}.") from exc
        signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(SystemExit(0)))
        stderr.print(f"Dead letters on http://{listen}; ^C ends it.", highlight=False)
        server.run()


@click.command()
@click.argument("name")
@click.password_option()
def password(name: str, password: str) -> None:
    """Print the line of the password file for somebody."""
    from scheduler.dlq.web.gate import hash_password

    if not name or ":" in name or name.startswith("#") or not name.isprintable():
        raise Usage(f"{name!r} can't be a name: use no colon, and no # in front.")
    if len(password) < 12:
        raise Usage("The password is too short: use 12 characters or more.")
    click.echo(hash_password(name, password))


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or not int(port) < 65536:
        raise Usage(f"--listen {listen} is no address:port such as 127.0.0.1:8085.")
    return host, int(port)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


COMMANDS = (web, password)
