"""DeepLabV3+ with the modified aligned Xception, faithful to the paper."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segapp.errors import UserError
    from segapp.library import load

__all__ = ["UserError", "load"]


def __getattr__(name: str) -> Any:
    """Imported when it is used: PyTorch takes seconds."""
    if name == "load":
        from segapp.library import load

        return load
    if name == "UserError":
        from segapp.errors import UserError

        return UserError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
