"""HTTP by uvicorn, for which a client must come to the point."""

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def bounded_protocol(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, which ends connections on which no whole head of a request comes in within so long, or whose
    client goes on sending so long after it was answered. (It bounds idle connections itself.)"""

    class BoundedProtocol(H11Protocol):
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._forget()

        def _watch(self) -> None:
            in_work = self.cycle is not None and not self.cycle.response_complete
            if in_work:
                self._forget()
            elif self._late is None and self.timeout_keep_alive_task is None:
                self._late = self.loop.call_later(seconds, self._end)

        def _forget(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _end(self) -> None:
            if self.transport.is_closing():
                return
            if self.conn.our_state is h11.IDLE and self.conn.their_state is h11.IDLE:
                problem = json.dumps({"error": f"no request came in within {seconds:g} seconds"}).encode()
                headers = [("content-type", "application/json"), ("connection", "close")]
                for event in (
                    h11.Response(status_code=408, headers=headers, reason=b"Request Timeout"),
                    h11.Data(data=problem),
                    h11.EndOfMessage(),
                ):
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

    return BoundedProtocol
