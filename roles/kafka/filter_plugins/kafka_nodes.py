"""Jinja filters about the cluster as the inventory has it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def kafka_nodes(
    hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Each host's number in the cluster and the address others reach it by.

    The number is ``kafka_node_id``, or else what the host's name ends with; None if that is none.

    >>> kafka_nodes(["kafka1.example.com", "b"], {"kafka1.example.com": {}, "b": {"kafka_node_id": 0}})
    {'kafka1.example.com': {'id': 1, 'address': 'kafka1.example.com'}, 'b': {'id': 0, 'address': 'b'}}
    """
    nodes: dict[str, dict[str, Any]] = {}
    for host in hosts:
        variables = hostvars[host]
        number = variables.get("kafka_node_id")
        if number is None:
            ending = re.search(r"[0-9]+$", host.partition(".")[0])
            number = ending and ending[0]
        nodes[host] = {
            "id": None if number is None else int(number),
            "address": variables.get("kafka_advertised_address") or host,
        }
    return nodes


def kafka_voters(
    nodes: Mapping[str, Mapping[str, Any]], controllers: Sequence[str], cluster_id: str, port: int
) -> str:
    """What ``kafka-storage.sh format --initial-controllers`` wants: ``id@address:port:directory,...``.

    The first controllers are each other's voters from the start, so each must know the directory
    ids of all: they are made from the cluster's id and the node's (16 bytes in base64, like any).

    >>> kafka_voters({"kafka1": {"id": 1, "address": "kafka1"}}, ["kafka1"], "x", 9093)
    '1@kafka1:9093:ec31682fde561917952ffA'
    """

    def directory(node: Mapping[str, Any]) -> str:
        return hashlib.sha256(f"{cluster_id}{node['id']}".encode()).hexdigest()[:21] + "A"

    voters = [nodes[host] for host in controllers]
    return ",".join(f"{node['id']}@{node['address']}:{port}:{directory(node)}" for node in voters)


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"kafka_nodes": kafka_nodes, "kafka_voters": kafka_voters}
