"""What a request is told that gets no answer."""

from collections.abc import Mapping


class Refusal(Exception):  # noqa: N818 (no fault of ours)
    """A status of HTTP, and one sentence that says what is wrong and what to do."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


def busy(seconds: float) -> Refusal:
    """Args:
    seconds: after which it may be worth another try.
    """
    return Refusal(429, "too many requests are in work; try again", {"Retry-After": str(max(1, round(seconds)))})
