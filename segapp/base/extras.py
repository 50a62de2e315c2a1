"""Libraries that only some uses need: whether they are here, and what to install where they are not."""

from importlib.util import find_spec

from segapp.base.errors import UserError

EXTRAS = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "export": ("onnx", "onnxscript"),
    "int8": ("nncf",),
    "video": ("av",),
    "parquet": ("pyarrow",),
    "sweep": ("optuna",),
    "serve": ("fastapi", "uvicorn", "python_multipart", "prometheus_client"),
}
"""Each extra of pyproject.toml, and the modules by which it is known to be installed."""


def is_installed(*extras: str) -> bool:
    return all(find_spec(module) is not None for extra in extras for module in EXTRAS[extra])


def require(extra: str, what: str) -> None:
    """Raises:
    UserError: a module of the extra is missing, which `what` needs.
    """
    missing = [module for module in EXTRAS[extra] if find_spec(module) is None]
    if missing:
        raise UserError(f"{what} needs {missing[0]}, which is not installed: pip install 'segapp[{extra}]'")
