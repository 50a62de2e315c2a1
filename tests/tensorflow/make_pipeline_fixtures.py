"""Writes `fixtures/pipeline.npz`: TensorFlow's ops in the steps around the network, as research/deeplab has them.

    uv run --no-project --with tensorflow-cpu python tests/tensorflow/make_pipeline_fixtures.py

jpeg: a file; jpeg_pixels: tf.image.decode_jpeg's.
image, label, crop: what is augmented (core/preprocess_utils.py, input_preprocess.py). Of each NUMBER of `scales`:
crop_NUMBER: size, top, left, flip; image_NUMBER (float16) and label_NUMBER: C x C.
canvas: 17 x 513 grey levels; view_NUMBER: row 5, channel 0 of its mirror image, resized by `view_scales` (model.py).
lr_NAME: at each of 20 steps (utils/train_utils.py: get_model_learning_rate), for base rate 0.007, slow start 1e-4.
logits, labels: 1 x 4 x 5 x 4 and 1 x 16 x 20. mining: the loss at `mining_steps`, with top_k_percent_pixels=0.25 and
hard_example_mining_step=10. weighted: the loss with label_weights `weights` (add_softmax_cross_entropy_loss_...).
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf  # type: ignore[import-untyped]

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.tensorflow import weights
from tests.tensorflow.weights import FIXTURES

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
VIEW_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
CROP = 25
STEPS, SLOW = 20, 6
MINING_STEPS = (0, 3, 5, 10, 15)
WEIGHTS = (0.2, 1.0, 0.5, 5.0)
v1 = tf.compat.v1


def jpeg() -> dict[str, Any]:
    image = weights.image(40, 56)
    content = tf.io.encode_jpeg(tf.constant(image), quality=85)
    return {
        "jpeg": np.frombuffer(content.numpy(), np.uint8),
        "jpeg_pixels": tf.image.decode_jpeg(content, channels=3).numpy(),
    }


def crops() -> dict[str, Any]:
    image = weights.image(23, 31, seed=1)
    label = image[..., 0] // 40
    found: dict[str, Any] = {"image": image, "label": label, "crop": CROP, "scales": np.array(SCALES)}
    for number, scale in enumerate(SCALES):
        pixels, classes = tf.constant(image, tf.float32), tf.constant(label, tf.int32)[..., None]
        if scale != 1:
            size = tf.cast(tf.cast(tf.shape(pixels)[:2], tf.float32) * scale, tf.int32)
            pixels = v1.image.resize_bilinear(pixels[None], size, align_corners=True)[0]
            classes = v1.image.resize_nearest_neighbor(classes[None], size, align_corners=True)[0]
        height, width = pixels.shape[:2]
        top, left, flip = max(0, height - CROP) // 3, max(0, width - CROP) // 2, number % 2
        pad = [[0, max(0, CROP - height)], [0, max(0, CROP - width)], [0, 0]]
        pixels = tf.pad(pixels - 127.5, pad) + 127.5
        classes = tf.pad(classes - 255, pad) + 255
        pixels, classes = (each[top : top + CROP, left : left + CROP] for each in (pixels, classes))
        if flip:
            pixels, classes = tf.reverse(pixels, [1]), tf.reverse(classes, [1])
        found |= {
            f"crop_{number}": np.array([height, width, top, left, flip]),
            f"image_{number}": pixels.numpy().astype(np.float16),
            f"label_{number}": classes.numpy()[..., 0].astype(np.uint8),
        }
    return found


def views() -> dict[str, Any]:
    image = weights.image(17, 513, seed=2)
    canvas = tf.constant(image[None].astype(np.float32) * np.float32(2 / 255) - np.float32(1))
    found: dict[str, Any] = {"canvas": image, "view_scales": np.array(VIEW_SCALES)}
    for number, scale in enumerate(VIEW_SCALES):
        size = [int((float(length) - 1.0) * scale + 1.0) for length in image.shape[:2]]
        mirrored = tf.reverse(canvas, [2])
        view = mirrored if scale == 1 else v1.image.resize_bilinear(mirrored, size, align_corners=True)
        found[f"view_{number}"] = view.numpy()[0, 5, :, 0]
    return found


def rates() -> dict[str, Any]:
    found: dict[str, Any] = {"slow_start_iterations": SLOW}
    for name in ("poly", "cosine"):
        values = []
        for step in range(STEPS):
            after = tf.maximum(step - SLOW, 0)
            if name == "poly":
                decay = v1.train.polynomial_decay(0.007, after, STEPS - SLOW, end_learning_rate=0.0, power=0.9)
            else:
                decay = v1.train.cosine_decay(0.007, after, STEPS - SLOW)
            values.append(float(tf.where(step < SLOW, 1e-4, decay() if callable(decay) else decay)))
        found[f"lr_{name}"] = np.array(values)
    return found


def losses() -> dict[str, Any]:
    random = np.random.RandomState(3)
    logits = random.normal(size=(1, 4, 5, 4)).astype(np.float32)  # N, h, w, K
    labels = random.randint(0, 4, (1, 16, 20))
    full = v1.image.resize_bilinear(tf.constant(logits), [16, 20], align_corners=True)
    flat = tf.reshape(full, [-1, 4])
    truth = tf.one_hot(labels.ravel(), 4)
    pixels = tf.nn.softmax_cross_entropy_with_logits(labels=truth, logits=flat)
    mined = []
    for step in MINING_STEPS:
        ratio = tf.minimum(1.0, step / 10)
        number = tf.cast((ratio * 0.25 + (1.0 - ratio)) * tf.cast(tf.shape(flat)[0], tf.float32), tf.int32)
        top, _ = tf.nn.top_k(pixels, k=number, sorted=True)
        mined.append(float(tf.reduce_sum(top) / tf.reduce_sum(tf.cast(tf.not_equal(top, 0.0), tf.float32))))
    weighted = tf.reduce_sum(pixels * tf.gather(tf.constant(WEIGHTS), labels.ravel())) / labels.size
    return {
        "logits": logits.transpose(0, 3, 1, 2),
        "labels": labels.astype(np.uint8),
        "mining_steps": np.array(MINING_STEPS),
        "mining": np.array(mined),
        "weights": np.array(WEIGHTS, np.float32),
        "weighted": float(weighted),
    }


if __name__ == "__main__":
    np.savez_compressed(FIXTURES / "pipeline.npz", **jpeg(), **crops(), **views(), **rates(), **losses())
