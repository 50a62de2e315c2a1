"""HTTP by uvicorn, for which a client must come to the point."""

import asyncio
import json
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

LAST_WORDS = 0.5
"""Seconds in which an idle connection may still send a request, once the service stops."""


def bounded_protocol(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, which ends connections on which no whole head of a request comes in within so long, whose
    client goes on sending so long after it was answered, or takes nothing of its answer so long. (It bounds idle
    connections itself.)"""

    class BoundedProtocol(H11Protocol):
        _late: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None

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
            self.resume_writing()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._check_reader(self.transport.get_write_buffer_size() + 1)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._unread is not None:
                self._unread.cancel()

        def _check_reader(self, before: int) -> None:
            left = self.transport.get_write_buffer_size()
            if left >= before:
                self.transport.abort()
            else:
                self._unread = self.loop.call_later(seconds, self._check_reader, left)

        def shutdown(self) -> None:
            if self.cycle is None or self.cycle.response_complete:  # what is on its way is told that the service stops
                self.loop.call_later(LAST_WORDS, self._close)
            else:
                super().shutdown()

        def _close(self) -> None:
            if not self.transport.is_closing():
                super().shutdown()

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
                self._refuse(408, f"no request came in within {seconds:g} seconds")
            self.transport.close()

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, f"this is no request of HTTP: {msg}")
            self.transport.close()

        def _refuse(self, status: int, sentence: str) -> None:
            headers = [("content-type", "application/json"), ("connection", "close")]
            for event in (
                h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode()),
                h11.Data(data=json.dumps({"error": sentence}).encode()),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")

    return BoundedProtocol
