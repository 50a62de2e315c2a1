"""The picture in a request's body: bounded in bytes and in time while it comes in, and never on a disk."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from segapp.serving.refusals import Refusal, busy

FORM_BYTES = 1 << 16
"""What a form may hold beside the image."""
RAW_TYPES = ("image/", "application/octet-stream")


class Upload(NamedTuple):
    """name: of the file, as the client says it, or "image"."""

    content: bytes
    name: str


class Receiver:
    """Reads pictures from requests.

    Args:
        most: bytes of one picture.
        together: bytes of all that are held at once.
        seconds: from a request's first byte to its last.
    """

    def __init__(self, most: int, together: int, seconds: float) -> None:
        self._most = most
        self._free = together
        self._seconds = seconds

    @asynccontextmanager
    async def reading(self, request: Request) -> AsyncIterator[Upload]:
        """The file in the form's field `image`, or the body; its bytes count among those of all until the end.

        Raises:
            Refusal: it is none, too large, or too slow.
        """
        kind = request.headers.get("content-type", "application/octet-stream").lower()
        is_form = kind.startswith("multipart/form-data")
        if not is_form and not kind.startswith(RAW_TYPES):
            raise Refusal(415, "send an image: as a form's file field named image, or as a body of type image/*")
        most, held = self._most + (FORM_BYTES if is_form else 0), 0
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:  # h11 has refused what is no number
            raise self._too_large()

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal held
            async for chunk in request.stream():
                held += len(chunk)
                self._free -= len(chunk)
                if held > most:
                    raise self._too_large()
                if self._free < 0:
                    raise busy(self._seconds)
                yield chunk

        try:
            try:
                async with asyncio.timeout(self._seconds):
                    upload = await (_in_form(request, chunks()) if is_form else _whole(chunks()))
            except TimeoutError:
                message = f"the image did not come in within {self._seconds:g} seconds; send it again"
                raise Refusal(408, message) from None
            except ClientDisconnect:
                raise Refusal(400, "the connection ended before the image") from None
            if len(upload.content) > self._most:
                raise self._too_large()
            if not upload.content:
                raise Refusal(400, "there is no image; send one as a form's file field named image, or as the body")
            yield upload
        finally:
            self._free += held

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the image is of more bytes than the bound of {self._most}; scale it down")


async def _whole(chunks: AsyncIterator[bytes]) -> Upload:
    return Upload(b"".join([chunk async for chunk in chunks]), "image")


async def _in_form(request: Request, chunks: AsyncIterator[bytes]) -> Upload:
    parser = MultiPartParser(
        request.headers,
        chunks,  # type: ignore[arg-type]  # any iterator will do
        max_files=1,
        max_fields=8,
        max_part_size=FORM_BYTES,
    )
    parser.spool_max_size = 0  # no bound, and so no file
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError) as error:
        message = error.message if isinstance(error, MultiPartException) else str(error)
        raise Refusal(400, f"the form cannot be read: {message}") from None
    try:
        image = form.get("image")
        if not isinstance(image, UploadFile):
            raise Refusal(400, "the form has no file in a field named image")
        return Upload(await image.read(), image.filename or "image")
    finally:
        await form.close()
