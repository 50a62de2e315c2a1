"""DeepLabV3+ with the modified aligned Xception, faithful to the paper."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segapp.api import load
    from segapp.base.errors import UserError

__version__ = "0.2.0"
__all__ = ["UserError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Imported when it is used: PyTorch takes seconds."""
    if name == "load":
        from segapp.api import load

        return load
    if name == "UserError":
        from segapp.base.errors import UserError

        return UserError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
