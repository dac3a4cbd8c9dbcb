"""What a client was asked and goes on with while its caller does something else."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

__all__ = ("Answer",)

Result = TypeVar("Result")


class Answer(Generic[Result]):
    """The answer to come of a coroutine that runs in a client's I/O thread.

    Arguments:
        client: a ``KafkaConsumer``; it is to be closed only after the answer came.
        asked: begins the coroutine.

    Attributes:
        seconds: how long it took; 0 until it is there.
    """

    def __init__(self, client: Any, asked: Callable[[], Awaitable[Result]]) -> None:
        self._net = client._net
        self.seconds = 0.0
        self._begun = time.monotonic()
        self._future = self._net.call_soon_with_future(asked)
        self._future.add_both(self._note)

    def _note(self, _: object) -> None:
        self.seconds = time.monotonic() - self._begun

    def is_there(self) -> bool:
        """Whether `get` need not wait."""
        return bool(self._future.is_done)

    def get(self) -> Result:
        """Return the answer, or raise what the coroutine raised; waits until it is there."""

        async def answer() -> Any:
            return await self._future

        return self._net.run(answer)  # type: ignore[no-any-return]
