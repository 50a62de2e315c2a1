"""DeepLabV3+ in TensorFlow's own ops, written from the released graph and independent of the project's networks.

    uv run --no-project --with tensorflow-cpu python tests/tensorflow/reference.py write FOLDER --slots
    uv run --no-project --with tensorflow-cpu python tests/tensorflow/reference.py logits OUT.npz --size 513

`write` saves a full-size checkpoint with made-up weights; `logits` saves the logits at stride 4 of one made-up image.
TensorFlow is no dependency of the project: only these scripts need it.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf  # type: ignore[import-untyped]

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.tensorflow import weights
from tests.tensorflow.weights import Array

Tensor = Any

ENCODER_EPSILON = 1e-3
# The released code asks for 1e-5. TensorFlow 1's fused_batch_norm raised that to cuDNN's least, 1.001e-5, and so the
# weights were trained and frozen with it; TensorFlow 2.21 no longer does, hence the number here.
HEAD_EPSILON = 1.001e-5
ASPP_RATES = {32: (3, 6, 9), 16: (6, 12, 18), 8: (12, 24, 36)}


class Network:
    """The evaluation graph over a dict of arrays by TensorFlow name; every array must be used."""

    def __init__(self, arrays: dict[str, Array], variant: str, output_stride: int) -> None:
        self.arrays = arrays
        self.variant = variant
        self.output_stride = output_stride
        self.unused = set(arrays)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits at stride 4 (without a decoder: at the output stride) of NHWC images in [-1, 1]."""
        self.unused = set(self.arrays)
        features, low_level = self.mobilenet(images) if self.variant in weights.MOBILENET else self.encoder(images)
        x = (
            self.cell(features)
            if "meta_architecture/concat_projection/weights" in self.arrays
            else self.aspp(features)
        )
        if "decoder/feature_projection0/weights" in self.arrays:
            x = self.decoder(x, low_level)
        x = tf.nn.conv2d(x, self.array("logits/semantic/weights"), strides=1, padding="SAME")
        x = tf.nn.bias_add(x, self.array("logits/semantic/biases"))
        if self.unused:
            raise ValueError(f"not used: {sorted(self.unused)}")
        return x

    def array(self, name: str) -> Array:
        self.unused.discard(name)
        return self.arrays[name]

    def norm(self, x: Tensor, scope: str) -> Tensor:
        epsilon = ENCODER_EPSILON if scope.startswith((self.variant, "MobilenetV2")) else HEAD_EPSILON
        gamma, beta, mean, variance = (
            self.array(f"{scope}/BatchNorm/{name}") for name in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        y, *_ = tf.compat.v1.nn.fused_batch_norm(
            x, gamma, beta, mean=mean, variance=variance, epsilon=epsilon, is_training=False
        )
        return y

    def conv(self, x: Tensor, scope: str, stride: int = 1) -> Tensor:
        """Convolution and BN: padded explicitly, then VALID, where it strides (resnet_utils.conv2d_same)."""
        kernel = self.array(f"{scope}/weights")
        if stride == 1:
            x = tf.nn.conv2d(x, kernel, strides=1, padding="SAME")
        else:
            x = tf.nn.conv2d(_fixed_padding(x, kernel.shape[0]), kernel, strides=stride, padding="VALID")
        return self.norm(x, scope)

    def depthwise(self, x: Tensor, scope: str, stride: int = 1, rate: int | tuple[int, int] = 1) -> Tensor:
        kernel = self.array(f"{scope}/depthwise_weights")
        if stride == 1:
            rates = [rate, rate] if isinstance(rate, int) else list(rate)
            x = tf.nn.depthwise_conv2d(x, kernel, strides=[1, 1, 1, 1], padding="SAME", dilations=rates)
        elif rate == 1:
            x = _fixed_padding(x, kernel.shape[0])
            x = tf.nn.depthwise_conv2d(x, kernel, strides=[1, stride, stride, 1], padding="VALID")
        else:
            raise ValueError("the released graph never strides and dilates at once")
        return self.norm(x, scope)

    def separable(
        self, x: Tensor, scope: str, stride: int = 1, rate: int | tuple[int, int] = 1, activation: bool = True
    ) -> Tensor:
        x = self.depthwise(x, f"{scope}_depthwise", stride, rate)
        x = tf.nn.relu(x) if activation else x
        x = self.conv(x, f"{scope}_pointwise")
        return tf.nn.relu(x) if activation else x

    def module(self, x: Tensor, module: weights.Module, stride: int, rate: int) -> tuple[Tensor, Tensor]:
        """The module's output and the output of its second separable convolution."""
        scope = f"{self.variant}/{module.scope}/xception_module"
        residual, second = x, None
        for number in (1, 2, 3):
            if not module.activation_inside:
                residual = tf.nn.relu(residual)
            residual = self.separable(
                residual,
                f"{scope}/separable_conv{number}",
                stride if number == 3 else 1,
                rate,
                activation=module.activation_inside,
            )
            if number == 2:
                second = residual
        if module.skip == "conv":
            return residual + self.conv(x, f"{scope}/shortcut", stride), second
        if module.skip == "sum":
            return residual + x, second
        return residual, second

    def encoder(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The features at the output stride and the decoder's low-level features at stride 4."""
        x = tf.nn.relu(self.conv(images, f"{self.variant}/entry_flow/conv1_1", stride=2))
        x = tf.nn.relu(self.conv(x, f"{self.variant}/entry_flow/conv1_2"))
        current, rate, low_level = 2, 1, None
        for module in weights.modules(self.variant):
            # xception.stack_blocks_dense: once at the target, a stride is spent on the rate of the units after it.
            if current == self.output_stride:
                x, second = self.module(x, module, stride=1, rate=rate)
                rate *= module.stride
            else:
                x, second = self.module(x, module, module.stride, rate=1)
                current *= module.stride
            if module.scope == weights.LOW_LEVEL_MODULE[self.variant]:
                low_level = second
        return x, low_level

    def mobilenet(self, x: Tensor) -> tuple[Tensor, None]:
        """slim's MobileNetV2 up to layer_18/output, padded SAME throughout; there is no decoder to feed."""

        def relu6(x: Tensor) -> Tensor:
            return tf.nn.relu6(x)

        def conv(x: Tensor, scope: str, stride: int = 1) -> Tensor:
            x = tf.nn.conv2d(x, self.array(f"{scope}/weights"), strides=stride, padding="SAME")
            return self.norm(x, scope)

        x = relu6(conv(x, "MobilenetV2/Conv", stride=2))
        current, rate = 2, 1
        for number, (expansion, channels, own) in enumerate(weights.MOBILENET[self.variant][1]):
            scope = "MobilenetV2/expanded_conv" + (f"_{number}" if number else "")
            stride, here = (1, rate) if current == self.output_stride else (own, 1)
            rate, current = (rate * own, current) if current == self.output_stride else (rate, current * own)
            y = relu6(conv(x, f"{scope}/expand")) if expansion > 1 else x
            kernel = self.array(f"{scope}/depthwise/depthwise_weights")
            y = tf.nn.depthwise_conv2d(y, kernel, [1, stride, stride, 1], "SAME", dilations=[here, here])
            y = conv(relu6(self.norm(y, f"{scope}/depthwise")), f"{scope}/project")
            x = x + y if own == 1 and x.shape[-1] == channels else y
        return x, None

    def cell(self, x: Tensor) -> Tensor:
        scope, scale = "meta_architecture", 16 // self.output_stride
        branches: list[Tensor] = []
        for number, (source, (down, across)) in enumerate(weights.CELL):
            y = x if source < 0 else branches[source]
            branches.append(self.separable(y, f"{scope}/branch{number}", rate=(down * scale, across * scale)))
        return tf.nn.relu(self.conv(tf.concat(branches, axis=3), f"{scope}/concat_projection"))

    def aspp(self, x: Tensor) -> Tensor:
        branches = []
        if "image_pooling/weights" in self.arrays:
            pooled = tf.reduce_mean(x, axis=[1, 2], keepdims=True)
            pooled = tf.nn.relu(self.conv(pooled, "image_pooling"))
            branches.append(_resize(pooled, x))
        branches.append(tf.nn.relu(self.conv(x, "aspp0")))
        rates = ASPP_RATES[self.output_stride] if "aspp1_pointwise/weights" in self.arrays else ()
        for number, rate in enumerate(rates, 1):
            branches.append(self.separable(x, f"aspp{number}", rate=rate))
        return tf.nn.relu(self.conv(tf.concat(branches, axis=3), "concat_projection"))

    def decoder(self, x: Tensor, low_level: Tensor) -> Tensor:
        projected = tf.nn.relu(self.conv(low_level, "decoder/feature_projection0"))
        x = tf.concat([_resize(x, projected), projected], axis=3)
        x = self.separable(x, "decoder/decoder_conv0")
        return self.separable(x, "decoder/decoder_conv1")


def _fixed_padding(x: Tensor, kernel: int) -> Tensor:
    total = kernel - 1
    before, after = total // 2, total - total // 2
    return tf.pad(x, [[0, 0], [before, after], [before, after], [0, 0]])


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return tf.compat.v1.image.resize_bilinear(x, like.shape[1:3], align_corners=True)


def make_arrays(variant: str, num_classes: int, cell: bool = False) -> dict[str, Array]:
    """The made-up weights of the whole network."""
    if variant in weights.MOBILENET:
        shapes = weights.mobilenet_variables(variant, num_classes)
    else:
        shapes = weights.variables(variant, num_classes, cell=cell)
    return {name: weights.values(name, shape) for name, shape in shapes.items()}


def logits(arrays: dict[str, Array], variant: str, image: Array, output_stride: int) -> Array:
    """Logits [H, W, classes] of one uint8 image."""
    scaled = image[None].astype(np.float32) * np.float32(2 / 255) - np.float32(1)
    found: Array = Network(arrays, variant, output_stride)(tf.constant(scaled)).numpy()[0]
    return found


def save(prefix: Path, arrays: dict[str, Array]) -> None:
    """One checkpoint with TF1 names, its tensors in the order of their names, as a Saver writes them."""
    names = sorted(arrays)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(arrays[name]) for name in names],
    )


def with_slots(arrays: dict[str, Array]) -> dict[str, Array]:
    """The arrays and what training leaves beside them: momentum of all that is learnt, averages of the head."""
    slots = {}
    for name, array in arrays.items():
        if weights.trainable(name):
            slots[f"{name}/Momentum"] = array * np.float32(0.01)
        if name.startswith((*weights.HEAD_SCOPES, "logits/")):
            slots[f"{name}/ExponentialMovingAverage"] = array * np.float32(0.99)
    return arrays | slots


def load(prefix: str, wanted: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    reader = tf.train.load_checkpoint(prefix)
    return {name: reader.get_tensor(name) for name in wanted}


def main() -> None:
    parser = argparse.ArgumentParser(description="The released DeepLabV3+ graph in TensorFlow's own ops.")
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write", help="save a full-size checkpoint FOLDER/model.ckpt")
    write.add_argument("folder", type=Path)
    write.add_argument("--slots", action="store_true", help="with optimizer slots and moving averages")
    run = commands.add_parser("logits", help="save the logits of a made-up image as OUT.npz")
    run.add_argument("out", type=Path)
    run.add_argument("--size", type=int, nargs="+", default=[513], help="height and width, or one for both")
    run.add_argument("--strides", type=int, nargs="+", default=[16, 8], choices=sorted(ASPP_RATES))
    run.add_argument("--checkpoint", metavar="PREFIX", help="read the weights from this checkpoint instead")
    for command in (write, run):
        command.add_argument("--variant", choices=sorted(weights.ENTRY), default="xception_65")
        command.add_argument("--classes", type=int, default=21)
    arguments = parser.parse_args()

    if arguments.command == "write":
        arrays = make_arrays(arguments.variant, arguments.classes)
        arrays = with_slots(arrays) if arguments.slots else arrays
        save(arguments.folder / "model.ckpt", arrays | {"global_step": np.asarray(30000, np.int64)})
        return
    if arguments.checkpoint:
        arrays = load(arguments.checkpoint, weights.variables(arguments.variant, arguments.classes))
    else:
        arrays = make_arrays(arguments.variant, arguments.classes)
    image = weights.image(arguments.size[0], arguments.size[-1])
    found: dict[str, Any] = {
        f"os{stride}": logits(arrays, arguments.variant, image, stride) for stride in arguments.strides
    }
    np.savez_compressed(arguments.out, image=image, **found)


if __name__ == "__main__":
    main()
