"""The hash of a password as Prometheus's programs want it: bcrypt, the same at every run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import bcrypt

#: 2**10 rounds: some 50 ms a scrape's password check, which Prometheus's programs then remember.
COST = 10


def bcrypt_hash(password: str, host: str) -> str:
    """Hash a password.

    Args:
        password: In clear.
        host: What the salt is made from. A salt need not be secret, only differ from host to host; made from the
            password it would give that away.
    """
    return bcrypt.hashpw(password.encode(), _salt(host)).decode()


def _salt(host: str) -> bytes:
    alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    digest = hashlib.sha256(host.encode()).digest()
    # 128 bits in 22 characters, of which the last has two bits.
    text = "".join(alphabet[byte % 64] for byte in digest[:21]) + alphabet[(digest[21] % 4) * 16]
    return f"$2b${COST:02}${text}".encode()


class FilterModule:
    """The filter of the role."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filter by its name in templates."""
        return {"bcrypt_hash": bcrypt_hash}
