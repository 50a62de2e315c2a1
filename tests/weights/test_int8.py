"""What stays in float when a network is brought to int8."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper

from segapp.weights.exported.int8 import quantized_ir, quantized_onnx

IMAGES = [np.random.default_rng(seed).normal(0, 1, (1, 3, 16, 16)).astype(np.float32) for seed in range(4)]


def network(loud: float) -> onnx.ModelProto:
    """Two classes, told by the sign of the first channel less the second, beside which there is a loud third channel.

    Next to one of 1000 times its size, the difference is less than a step of int8.
    """
    first = np.array([[1, -1, 0], [0, 0, loud]], np.float32).reshape(2, 3, 1, 1)
    second = np.array([[1, 0], [-1, 0]], np.float32).reshape(2, 2, 1, 1)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["images", "first"], ["hidden"], name="first_conv"),
            helper.make_node("Conv", ["hidden", "second"], ["logits"], name="second_conv"),
        ],
        "by_hand",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2, "h", "w"])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def labels_of_onnx(model: onnx.ModelProto) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run(None, {"images": each})[0].argmax(1) for each in IMAGES]


def labels_of_ir(model: openvino.Model) -> Any:
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [compiled([each])[0].argmax(1) for each in IMAGES]


@pytest.mark.parametrize("loud", [1, 1000])
@pytest.mark.parametrize("kind", ["onnx", "ir"])
def test_layers_that_hurt_stay_in_float(kind: str, loud: float) -> None:
    model = network(loud)
    expected = [(each[:, 0] < each[:, 1]).astype(int) for each in IMAGES]
    if kind == "onnx":
        quantized = quantized_onnx(model, [{"images": each} for each in IMAGES])
        found = labels_of_onnx(quantized)
        in_int8 = sum(node.op_type == "QuantizeLinear" for node in quantized.graph.node)
    else:
        quantized = quantized_ir(openvino.Core().read_model(model.SerializeToString()), IMAGES)
        found = labels_of_ir(quantized)
        in_int8 = sum(node.get_type_name() == "FakeQuantize" for node in quantized.get_ops())
    assert np.mean(np.array(found) == np.array(expected)) > 0.97
    assert (in_int8 > 1) == (loud == 1), "what takes the loud channel went back, and the input stays in int8"


def test_ranges_are_of_all_channels_where_onnx_runtime_knows_no_other() -> None:
    """NNCF gives each channel before a depthwise convolution a range of its own, which ONNX Runtime then refuses."""
    weight = np.random.default_rng(0).normal(0, 1, (3, 1, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["images", "identity"], ["first"], name="first_conv"),
            helper.make_node("Conv", ["first", "weight"], ["second"], name="depthwise", group=3, pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["second", "identity"], ["logits"], name="last_conv"),
        ],
        "depthwise",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.eye(3, dtype=np.float32)[:, :, None, None], "identity"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    shifted = [each + np.array([0, 3, -2], np.float32).reshape(3, 1, 1) for each in IMAGES]
    quantized = quantized_onnx(model, [{"images": each} for each in shifted])
    sizes = {each.name: int(np.prod(each.dims)) for each in quantized.graph.initializer}
    steps = [sizes[node.input[1]] for node in quantized.graph.node if node.op_type == "QuantizeLinear"]
    assert set(steps) == {1}
    session = onnxruntime.InferenceSession(quantized.SerializeToString(), providers=["CPUExecutionProvider"])
    original = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found, expected = (each.run(None, {"images": shifted[0]})[0] for each in (session, original))
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
