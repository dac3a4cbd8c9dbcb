"""The claim on a bound partition: the one seat in a group of the partition's own.

Kafka keeps the seat for who sits on it as long as it hears of it (`session_timeout`), and tells
everybody who that is. A process of the same name takes the seat at once, as a worker does that was
killed and starts again; whoever sat there is fenced.
"""

from __future__ import annotations

from typing import Any

from kafka import KafkaConsumer
from kafka.coordinator.base import BaseCoordinator
from kafka.errors import KafkaError
from kafka.protocol.consumer import LeaveGroupRequest
from kafka.structs import TopicPartition

from ..options import Options
from .lease import Lease
from .presence import Owner, owner_group

__all__ = ("Claim",)

#: Milliseconds a join may take before it is tried again.
JOIN_MS = 5000
#: Milliseconds for the goodbye.
LEAVE_MS = 2000


class Claim(BaseCoordinator):
    """A seat, over the connections of the consumer `client`.

    Arguments:
        client: the consumer that reads the partition.
        options: group and session timeout.
        partition: what is claimed.
        owner: who claims it.
    """

    def __init__(
        self, client: KafkaConsumer, options: Options, partition: TopicPartition, owner: Owner
    ) -> None:
        session = int(options.session_timeout * 1000)
        super().__init__(
            client._client,
            group_id=owner_group(options.group_id, partition),
            group_instance_id="owner",
            session_timeout_ms=session,
            heartbeat_interval_ms=min(3000, session // 3),
            api_version=client.config["api_version"],
            request_timeout_ms=client.config["request_timeout_ms"],
        )
        self._owner = owner
        self.lease = Lease(self, options.session_timeout)

    def protocol_type(self) -> str:
        return "kombu-kafka-owner"

    def group_protocols(self) -> list[tuple[str, bytes]]:
        return [("owner", self._owner.encode())]

    def _perform_assignment(self, leader_id: str, protocol: str, members: Any) -> dict[str, bytes]:
        return {member.member_id: b"" for member in members}

    def take(self) -> bool:
        """Sit down, whoever sits there; say whether that is confirmed.

        Raises:
            FencedInstanceIdError: another process has sat down in our place.
            RetriableError: the brokers did not answer.
        """
        return bool(self.ensure_active_group(timeout_ms=JOIN_MS)) and self.lease.renew()

    def keep(self) -> bool:
        """Show that this process is alive; say whether the seat is still ours.

        Raises:
            FencedInstanceIdError: another process has taken the seat.
        """
        self.poll_heartbeat()
        return self.lease.renew() and not self.need_rejoin()

    def leave(self) -> None:
        """Stand up, so that the next owner need not wait."""
        self._close_heartbeat()
        if self.generation_if_stable() is not None:
            self._net.run(self._leave)

    async def _leave(self) -> None:
        member = LeaveGroupRequest.MemberIdentity(
            member_id=self._generation.member_id,
            group_instance_id=self.group_instance_id,
            reason="the worker ends",
        )
        request = LeaveGroupRequest(
            group_id=self.group_id, member_id=self._generation.member_id, members=[member]
        )
        try:
            future = self._manager.send(request, node_id=self.coordinator_id)
            await self._manager.wait_for(future, LEAVE_MS)
        except KafkaError:
            pass  # then the seat is free after the session timeout
        self.reset_generation()
