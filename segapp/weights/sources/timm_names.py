"""What parameters of our encoders are called in timm and torchvision, where that is not what they are called here."""

from collections.abc import Mapping

from segapp.models.encoders import googlenet, inception_v3, xception
from segapp.models.encoders.inception import Conv
from segapp.weights.checkpoint import CLASSIFIER


def xception_names() -> dict[str, str]:
    """timm's legacy_xception: theirs by ours, of layers."""
    places = {f"stem.{i}.{layer}": f"{layer}{i + 1}" for i in range(2) for layer in ("conv", "bn")}
    *blocks, last = xception.UNITS
    for i, unit in enumerate(blocks):
        theirs = f"block{i + 1}"
        at = 0  # in a sequence, whose ReLUs and pools count too
        for j in range(len(unit.channels)):
            at += unit.relu == "before" or j > 0
            places |= _separable(f"blocks.{i}.convs.{j}", f"{theirs}.rep.{at}", f"{theirs}.rep.{at + 1}")
            at += 2
        if unit.stride > 1:
            places |= {f"blocks.{i}.shortcut.conv": f"{theirs}.skip", f"blocks.{i}.shortcut.bn": f"{theirs}.skipbn"}
    for j in range(len(last.channels)):
        places |= _separable(f"blocks.{len(blocks)}.convs.{j}", f"conv{j + 3}", f"bn{j + 3}")
    return places


def _separable(ours: str, conv: str, bn: str) -> dict[str, str]:
    return {f"{ours}.depthwise": f"{conv}.conv1", f"{ours}.pointwise": f"{conv}.pointwise", f"{ours}.bn": bn}


def inception_v3_names() -> dict[str, str]:
    """torchvision's inception_v3, and timm's: theirs by ours, of layers."""
    places: dict[str, str] = {}
    for i, unit in enumerate(inception_v3.UNITS):
        if isinstance(unit.step, Conv):
            places |= {f"blocks.{i}": unit.name}
        elif not isinstance(unit.step, str):
            for branch, steps in unit.step.items():
                numbered = len([step for step in steps if not isinstance(step, str)]) > 1
                for j, step in enumerate(steps):
                    theirs = f"{unit.name}.{branch}" + (f"_{j + 1}" if numbered else "")
                    if isinstance(step, Conv):
                        places[f"blocks.{i}.{branch}.{j}"] = theirs
                    elif not isinstance(step, str):
                        places |= {f"blocks.{i}.{branch}.{j}.{fork}.0": f"{theirs}{fork}" for fork in step}
    return {f"{ours}.{layer}": f"{theirs}.{layer}" for ours, theirs in places.items() for layer in ("conv", "bn")}


def googlenet_names() -> dict[str, str]:
    """torchvision's googlenet: theirs by ours, of layers."""
    places: dict[str, str] = {}
    for i, unit in enumerate(googlenet.TORCHVISIONS):
        if isinstance(unit.step, Conv):
            places |= {f"blocks.{i}": unit.name}
        elif isinstance(unit.step, Mapping):
            for branch, steps in unit.step.items():
                at = [j for j, step in enumerate(steps) if isinstance(step, Conv)]
                theirs = f"{unit.name}.{branch}"
                places |= {f"blocks.{i}.{branch}.{j}": f"{theirs}.{j}" if len(steps) > 1 else theirs for j in at}
    return {f"{ours}.{layer}": f"{theirs}.{layer}" for ours, theirs in places.items() for layer in ("conv", "bn")}


ALEXNET = {f"blocks.{i}.conv": f"features.{at}" for i, at in enumerate((0, 3, 6, 8, 10))}
"""torchvision's alexnet: theirs by ours, of layers."""

LAYERS = {
    encoder: layers | {CLASSIFIER.removesuffix("."): "fc"}
    for encoder, layers in (
        ("xception", xception_names()),
        ("inception_v3", inception_v3_names()),
        ("googlenet_torchvision", googlenet_names()),
        ("alexnet_torchvision", ALEXNET),
    )
}
"""Theirs by ours. An encoder that is not here has their names."""


def timm_name(encoder: str, name: str) -> str:
    """Of a tensor that is called `name` in a file of ours."""
    layer, _, part = name.rpartition(".")
    return f"{LAYERS.get(encoder, {}).get(layer, layer)}.{part}"
