"""What our parameters are called elsewhere, as tables. A layer's name is its place and its part, mapped apart.

timm's names need no table: those of our encoder are the same, and its classifier is head.fc.
"""

from segapp.models.deeplabv3plus import DeepLabV3PlusConfig, DensePredictionCellConfig
from segapp.models.head import CELL

TF_SCOPES = {
    "xception41": "xception_41",
    "xception65": "xception_65",
    "xception71": "xception_71",
    "mobilenet_v2": "MobilenetV2",
    "mobilenet_v2_dm05": "MobilenetV2",
}
"""The encoder's scope in the released checkpoints (research/deeplab/core/feature_extractor.py)."""

TF_UNITS = {
    name: (
        *(f"entry_flow/block{block}/unit_1" for block in range(1, entry + 1)),
        *(f"middle_flow/block1/unit_{unit}" for unit in range(1, middle + 1)),
        *(f"exit_flow/block{block}/unit_1" for block in (1, 2)),
    )
    for name, entry, middle in (("xception41", 3, 8), ("xception65", 3, 16), ("xception71", 5, 16))
}
"""The Xceptions' modules in order (research/deeplab/core/xception.py)."""

MOBILENET_UNITS = 17

TF_HEAD = {
    "aspp.image_pooling": "image_pooling",
    "aspp.branches.0": "aspp0",
    "aspp.branches.1": "aspp1",
    "aspp.branches.2": "aspp2",
    "aspp.branches.3": "aspp3",
    "aspp.projection": "concat_projection",
    "decoder.reduce": "decoder/feature_projection0",
    "decoder.conv0": "decoder/decoder_conv0",
    "decoder.conv1": "decoder/decoder_conv1",
    "logits": "logits/semantic",
}
"""Places in the head (research/deeplab/model.py)."""

TF_DENSE_DECODER = {
    "decoder.conv0": "decoder/decoder_conv0/decoder_conv0_1",
    "decoder.conv1": "decoder/decoder_conv0/decoder_conv0_2",
}
"""Where the decoder's convs are dense, slim.repeat has named them."""

TF_CELL = {f"aspp.branches.{i}": f"meta_architecture/branch{i}" for i in range(len(CELL))} | {
    "aspp.projection": "meta_architecture/concat_projection"
}
"""Places in the dense prediction cell (research/deeplab/core/dense_prediction_cell.py)."""

Axes = tuple[int, ...]
"""Theirs, in our order."""
VECTOR: Axes = (0,)
CONV: Axes = (3, 2, 0, 1)  # from [H, W, I, O]
DEPTHWISE: Axes = (2, 3, 0, 1)  # from [H, W, C, 1]

TF_PARTS: dict[str, tuple[str, Axes]] = {
    ".conv.weight": ("/weights", CONV),
    ".conv_dw.weight": ("_depthwise/depthwise_weights", DEPTHWISE),
    ".conv_pw.weight": ("_pointwise/weights", CONV),
    ".expand.conv.weight": ("/expand/weights", CONV),
    ".depthwise.conv.weight": ("/depthwise/depthwise_weights", DEPTHWISE),
    ".project.conv.weight": ("/project/weights", CONV),
    ".weight": ("/weights", CONV),  # of the logits
    ".bias": ("/biases", VECTOR),
} | {
    f"{ours}.{mine}": (f"{theirs}/BatchNorm/{name}", VECTOR)
    for ours, theirs in (
        (".bn", ""),
        (".bn_dw", "_depthwise"),
        (".bn_pw", "_pointwise"),
        (".expand.bn", "/expand"),
        (".depthwise.bn", "/depthwise"),
        (".project.bn", "/project"),
    )
    for mine, name in (
        ("weight", "gamma"),
        ("bias", "beta"),
        ("running_mean", "moving_mean"),
        ("running_var", "moving_variance"),
    )
}
"""Part of a layer to its name behind the scope, and the order of its axes."""

TF_SLOTS = ("Momentum", "RMSProp", "RMSProp_1", "Adam", "Adam_1", "Adagrad", "ExponentialMovingAverage")
"""Names under a variable's own that hold an optimizer's state, or its moving average."""
TF_COUNTERS = ("global_step", "beta1_power", "beta2_power")


def tf_encoder_places(encoder: str) -> dict[str, str]:
    """Our encoder's layers to their scopes."""
    scope = TF_SCOPES[encoder]
    if encoder not in TF_UNITS:
        units = {f"blocks.{i}": f"{scope}/expanded_conv_{i}" for i in range(1, MOBILENET_UNITS)}
        return {"stem": f"{scope}/Conv", "blocks.0": f"{scope}/expanded_conv"} | units
    places = {f"stem.{i}": f"{scope}/entry_flow/conv1_{i + 1}" for i in range(2)}
    for i, unit in enumerate(TF_UNITS[encoder]):
        module = f"{scope}/{unit}/xception_module"
        places[f"blocks.{i}.shortcut"] = f"{module}/shortcut"
        places |= {f"blocks.{i}.stack.conv{j}": f"{module}/separable_conv{j}" for j in (1, 2, 3)}
    return places


def tf_places(network: DeepLabV3PlusConfig) -> dict[str, str]:
    """Our network's layers to their scopes."""
    places = {f"encoder.{ours}": theirs for ours, theirs in tf_encoder_places(network.encoder.name).items()}
    places |= TF_HEAD
    if isinstance(network.aspp, DensePredictionCellConfig):
        places |= TF_CELL
    if network.decoder is not None and not network.decoder.separable:
        places |= TF_DENSE_DECODER
    return places


def tf_name(name: str, places: dict[str, str]) -> tuple[str, Axes]:
    """A parameter's name in a checkpoint of TensorFlow, and its axes there in our order.

    Args:
        name: ours; of a layer among `places`.
    """
    place = next(place for place in _ancestors(name) if place in places)
    theirs, axes = TF_PARTS[name.removeprefix(place)]
    return places[place] + theirs, axes


def _ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def tf_is_left_out(name: str, all_names: frozenset[str]) -> bool:
    """Whether a tensor is known to be of no use: a counter, or a slot of a variable that is there."""
    variable, _, last = name.rpartition("/")
    return name in TF_COUNTERS or (last in TF_SLOTS and variable in all_names)
