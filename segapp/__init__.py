"""DeepLabV3+ with the modified aligned Xception, faithful to the paper."""

from segapp.errors import UserError
from segapp.library import load

__all__ = ["UserError", "load"]
