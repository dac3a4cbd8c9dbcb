"""Which worker host runs which partition: a pure function of the inventory.

Hosts that pin their partitions (`celery_worker_partitions: [0, 4]`) run exactly those. The rest is
spread over the other hosts by rendezvous hashing under a bound: every host gets the same number,
give or take one, and a partition goes to the host that it scores highest with among those that have
room. So no state is kept, and adding a host or partitions moves few of the partitions that run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

#: What stands for "no pins" where an inventory says nothing.
AUTO = "auto"


class PlacementError(ValueError):
    """The inventory asks for a placement that cannot be."""


def place(
    partitions: int, hosts: Sequence[str], pins: Mapping[str, object] | None = None
) -> dict[str, list[int]]:
    """Give every partition from 0 to `partitions` - 1 exactly one of the hosts.

    Args:
        partitions: How many partitions the topic has.
        hosts: The worker hosts.
        pins: For a host, the list of partitions that it alone runs; or "auto", as if not named.

    Returns:
        For each host, in the given order, its partitions in ascending order.

    Raises:
        PlacementError: In one sentence, what the inventory has to change.
    """
    if isinstance(partitions, bool) or not isinstance(partitions, int) or partitions < 1:
        raise PlacementError(
            f"celery_partitions is {partitions!r}, but a topic has a whole number of partitions, "
            "1 or more: set it in group_vars/all."
        )
    if not hosts:
        raise PlacementError(
            f"The inventory group celery_workers is empty, so nothing would run the {partitions} "
            "partition(s) of the topic: put at least one host into it."
        )
    pinned = _pinned(partitions, {h: p for h, p in (pins or {}).items() if p != AUTO})
    owner = {partition: host for host, mine in pinned.items() for partition in mine}
    free = [partition for partition in range(partitions) if partition not in owner]
    open_hosts = [host for host in hosts if host not in pinned]
    if free and not open_hosts:
        raise PlacementError(
            f"No host runs {_named(free)}: every host in celery_workers pins its partitions with "
            "celery_worker_partitions, so add the missing ones to a host, or let one host go "
            "without pins."
        )
    owner |= _spread(free, open_hosts)
    return {host: sorted(p for p, its in owner.items() if its == host) for host in hosts}


def _pinned(partitions: int, pins: Mapping[str, object]) -> dict[str, list[int]]:
    owner: dict[int, str] = {}
    for host, pin in pins.items():
        if not isinstance(pin, list) or any(
            isinstance(p, bool) or not isinstance(p, int) for p in pin
        ):
            raise PlacementError(
                f"celery_worker_partitions of host {host} is {pin!r}, but must be a list of "
                "partition numbers such as [0, 4]: mend it in the host's variables."
            )
        for partition in pin:
            if not 0 <= partition < partitions:
                raise PlacementError(
                    f"Host {host} pins partition {partition}, but the topic has {partitions} "
                    f"partition(s), 0 to {partitions - 1}: take it out of the host's "
                    "celery_worker_partitions, or raise celery_partitions."
                )
            if partition in owner:
                hosts = f"{owner[partition]} and {host}" if owner[partition] != host else host
                raise PlacementError(
                    f"Partition {partition} is pinned twice (celery_worker_partitions of {hosts}), "
                    "but has one owner so that its order holds: keep it in one place."
                )
            owner[partition] = host
    return {host: [p for p, its in owner.items() if its == host] for host in pins}


def _spread(partitions: Sequence[int], hosts: Sequence[str]) -> dict[int, str]:
    if not partitions:
        return {}
    share, larger = divmod(len(partitions), len(hosts))
    load = dict.fromkeys(hosts, 0)
    owner: dict[int, str] = {}
    for _, partition, host in sorted(
        ((_score(host, p), p, host) for p in partitions for host in hosts), reverse=True
    ):
        if partition in owner or load[host] > share or (load[host] == share and not larger):
            continue
        larger -= load[host] == share
        load[host] += 1
        owner[partition] = host
    return owner


def _score(host: str, partition: int) -> bytes:
    return hashlib.sha256(f"{host}\0{partition}".encode()).digest()


def lost(
    records: Sequence[Mapping[str, Sequence[int]]],
    inventory: Sequence[str],
    given_up: Sequence[str] = (),
) -> dict[str, list[int]]:
    """Find hosts that ran partitions at the last run, and that the inventory no longer knows.

    Args:
        records: The placements recorded on the hosts at the last run.
        inventory: The hosts in celery_workers and celery_workers_removed.
        given_up: Hosts whose machines are said to be dead for good.

    Returns:
        For each such host the partitions whose workers may still run there.
    """
    found: dict[str, set[int]] = {}
    for record in records:
        for host, partitions in record.items():
            if partitions and host not in inventory and host not in given_up:
                found.setdefault(host, set()).update(partitions)
    return {host: sorted(found[host]) for host in sorted(found)}


def fault(
    partitions: int,
    hosts: Sequence[str],
    pins: Mapping[str, object],
    removed: Sequence[str] = (),
) -> str:
    """Say in one sentence why the inventory's placement cannot be; empty if it can."""
    if both := sorted(set(hosts) & set(removed)):
        return (
            f"Host {', '.join(both)} is in celery_workers and in celery_workers_removed, so it is "
            "not clear whether it shall run workers: take it out of one of the two groups."
        )
    try:
        place(partitions, hosts, pins)
    except PlacementError as error:
        return str(error)
    return ""


def lost_fault(
    records: Sequence[Mapping[str, Sequence[int]]],
    inventory: Sequence[str],
    given_up: Sequence[str] = (),
) -> str:
    """Say in one sentence which host vanished from the inventory; empty if none did."""
    for host, partitions in lost(records, inventory, given_up).items():
        return (
            f"Host {host} ran {_named(partitions)} at the last run but is in neither "
            "celery_workers nor celery_workers_removed, so its workers may still run and a "
            f"partition would get two owners: put {host} into celery_workers_removed, or, if the "
            f"machine is dead for good, run once with -e celery_worker_lost_hosts={host}."
        )
    return ""


def _named(partitions: Sequence[int]) -> str:
    numbers = ", ".join(str(p) for p in partitions)
    return f"partition {numbers}" if len(partitions) == 1 else f"partitions {numbers}"


class FilterModule:
    """The filters of the role."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by their names in templates."""
        return {
            "celery_placement": place,
            "celery_placement_fault": fault,
            "celery_lost_hosts_fault": lost_fault,
        }
