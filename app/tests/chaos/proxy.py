"""A TCP proxy before each broker, to cut connections, to hold data up, and to lose it."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
import time
from collections.abc import Iterator

from scheduler import processes

__all__ = ["Proxy"]

#: Seconds that connections have to end by themselves when they are closed.
END_SECONDS = 2.0


class _Requests:
    """Tells Kafka's requests in the bytes of a connection: a size of four bytes, then what is asked."""

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0

    def seen(self, data: bytes) -> Iterator[int]:
        """Give the number of each request that begins in `data`, or before it."""
        self._buffer += data
        while True:
            passed = min(self._left, len(self._buffer))
            self._buffer, self._left = self._buffer[passed:], self._left - passed
            if self._left or len(self._buffer) < 6:
                return
            size, number = struct.unpack_from(">ih", self._buffer)
            self._left = 4 + size
            yield number


class Proxy:
    """Passes connections on to one port, in a thread of its own.

    Args:
        target: The port, on `localhost`.
    """

    def __init__(self, target: int) -> None:
        self.port = processes.free_port()
        #: Seconds that each piece of data is held up.
        self.delay = 0.0
        #: What is lost on the way: `requests`, `answers`, or nothing.
        self.loses: str | None = None
        #: Kafka's numbers of requests with which losing answers begins: they get through.
        self.loses_answers_to: frozenset[int] = frozenset()
        #: Bytes that were lost.
        self.lost = 0
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()
        server = asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._server = asyncio.run_coroutine_threadsafe(server, self._loop).result(60)

    def cut(self) -> int:
        """Break every connection; return how many."""
        return asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(60)

    def restore(self) -> None:
        """Break every connection, and lose nothing any more."""
        asyncio.run_coroutine_threadsafe(self._restore(), self._loop).result(60)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        """Close what was accepted, also in the last moment: nothing is left to the collector of garbage."""
        since = time.monotonic()
        while serving := asyncio.all_tasks() - {asyncio.current_task()}:
            await self._cut()
            if time.monotonic() - since > END_SECONDS:  # a broker that does not answer
                for task in serving:
                    task.cancel()
            await asyncio.wait(serving, timeout=0.05)
        await asyncio.sleep(0)

    async def _cut(self) -> int:
        writers = list(self._writers)
        for writer in writers:
            writer.transport.abort()
        return len(writers) // 2

    async def _restore(self) -> None:
        await self._cut()
        self.loses, self.loses_answers_to = None, frozenset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = {writer}
        self._writers.add(writer)
        try:
            there, back = await asyncio.open_connection("localhost", self._target)
            ends.add(back)
            self._writers.add(back)
            await asyncio.gather(
                self._pump("requests", reader, back), self._pump("answers", there, writer)
            )
        except (OSError, asyncio.CancelledError):
            pass  # nobody is there, or not in time
        finally:
            for end in ends:
                end.transport.abort()
            self._writers -= ends

    async def _pump(
        self, kind: str, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        requests = _Requests()
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if kind == "requests" and set(requests.seen(data)) & self.loses_answers_to:
                    self.loses = "answers"
                if self.loses == kind:
                    self.lost += len(data)
                    continue
                if self.delay:
                    await asyncio.sleep(self.delay)
                sink.write(data)
                await sink.drain()
        sink.transport.abort()
