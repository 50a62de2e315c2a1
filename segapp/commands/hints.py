"""The command that evaluates a run again, on the same data and in the same way, in as few words as it takes."""

import shlex
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from segapp.base.compose import choices, compose_config
from segapp.base.config import flat
from segapp.base.hydra_flags import current
from segapp.data.config import AnyDataConfig
from segapp.inference.options import InferenceConfig
from segapp.training.config import ClassifyConfig, SegmentConfig, TrainConfig

UNSCORED = ("cache", "sampler", "download")
"""Keys of the data that no metric depends on."""
GROUPS: dict[str, tuple[TypeAdapter[Any], str]] = {
    "data": (TypeAdapter(AnyDataConfig), "name"),
    "inference": (TypeAdapter(InferenceConfig), "kind"),
}
"""Groups of tools/eval.py, and the key that tells their kinds apart."""


def evaluation_command(config: TrainConfig, output: Path) -> str:
    """Of the run in `output`, with its config."""
    assert isinstance(config, SegmentConfig | ClassifyConfig)
    known = {config.inference.key: "trained"}  # by the checkpoint
    every = {"_all_": {group: {choice: choice for choice in choices(group)} for group in GROUPS}}
    overrides = [f"+{key.split('.')[1]}@{key}={choice}" for key, choice in flat(every).items()]
    composed = compose_config("eval", overrides)["_all_"]
    inference = _nearest("inference", config.inference.model_dump(mode="json") | known, composed)
    words = [
        f"checkpoint={output}",
        *_nearest("data", config.data.model_dump(mode="json"), composed),
        *(inference if inference != ["inference=trained"] else []),
        *([f"precision={config.precision}"] if config.precision != "auto" else []),
    ]
    return f"uv run {shlex.join(['python', 'tools/eval.py', *current().folder_words, *words])}"


def encoder_words(config: TrainConfig, output: Path) -> str:
    """What makes a run for segmentation start from the encoder of the run in `output`."""
    encoder = config.model.encoder.model_dump(mode="json")
    usual = compose_config("train", [f"model/encoder={encoder['name']}"])["model"]["encoder"]
    keys = [f"model.encoder.{key}={_typed(value)}" for key, value in encoder.items() if value != usual.get(key)]
    return shlex.join([f"model/encoder={encoder['name']}", *keys, f"encoder_weights={output}"])


def _nearest(group: str, given: dict[str, Any], composed: dict[str, Any]) -> list[str]:
    """The choice of the group that is of the same kind, and what differs from it least."""
    adapter, kind = GROUPS[group]
    values, found = flat(given), []
    for choice, config in composed[group].items():
        usual = flat(adapter.validate_python(config).model_dump(mode="json"))
        changed = [key for key, value in values.items() if key not in UNSCORED and value != usual.get(key)]
        if usual[kind] == given[kind]:
            found.append([f"{group}={choice}", *(f"{group}.{key}={_typed(values[key])}" for key in changed)])
    return min(found, key=lambda words: (len(words), len(" ".join(words))))


def _typed(value: Any) -> str:
    """A value as Hydra reads it."""
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
