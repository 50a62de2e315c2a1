"""Writes `fixtures/`: small checkpoints that TensorFlow saved, what they hold, and logits of the reference network.

    uv run --no-project --with tensorflow-cpu python tests/tensorflow/make_fixtures.py

Beside each checkpoint NAME.index lies NAME.npz: `names`, `dtypes` (TensorFlow's) and the arrays under "0", "1", ... in
that order. bfloat16 is stored as its uint16 bits, a string tensor as unicode. Nothing is pickled.

logits_41.npz, logits_65.npz and logits_71.npz hold `size`, and of `weights.image(*size)` the logits [H, W, 21] at
stride 4 as `os16` and `os8`. In logits_65_wide.npz they are every second row and column. It is there because on the
small squares no rate of the ASPP reaches another pixel; at its length even the largest does, at either output stride.
"""

import gzip
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf  # type: ignore[import-untyped]

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.tensorflow import reference, weights
from tests.tensorflow.weights import FIXTURES, Array

Tensors = dict[str, Any]

DENORMALS = {tf.float16: 2.0**-20, tf.bfloat16: 2.0**-130, tf.float32: 2.0**-130, tf.float64: 2.0**-1030}
INTEGERS = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)


def dtypes() -> Tensors:
    """Each type with its special values; the string tensor is there to be refused."""
    tensors: Tensors = {}
    for dtype, denormal in DENORMALS.items():
        special = [0, -0.0, 1, -1.5, np.pi, np.inf, -np.inf, np.nan, denormal, -denormal, dtype.max, dtype.min]
        tensors[f"types/{dtype.name}"] = tf.constant(np.array(special, np.float64).astype(dtype.as_numpy_dtype))
    for integer in INTEGERS:
        limits = np.iinfo(integer)
        tensors[f"types/{np.dtype(integer).name}"] = tf.constant(np.array([limits.min, 0, 1, 77, limits.max], integer))
    tensors["types/bool"] = tf.constant([[True, False, True], [False, False, True]])
    tensors["types/complex64"] = tf.constant(np.array([1 - 2j, 0.5j, complex(np.inf, -0.0)], np.complex64))
    tensors["types/string"] = tf.constant(["", "label", "sömething lönger " * 10])
    return tensors


def shapes() -> Tensors:
    """Scalars, empty tensors and up to five dimensions."""
    random = np.random.RandomState(0)
    sizes = [(), (1,), (0,), (3, 0, 2), (7,), (2, 3), (37, 19), (2, 3, 4), (3, 3, 2, 5), (2, 1, 3, 2, 2)]
    tensors: Tensors = {
        "rank{}/{}".format(len(size), "x".join(map(str, size)) or "scalar"): tf.constant(
            random.normal(size=size), tf.float32
        )
        for size in sizes
    }
    return tensors | {"global_step": tf.constant(30000, tf.int64)}


def shards() -> list[Tensors]:
    """Three parts, whose names interleave in the merged index."""
    random = np.random.RandomState(1)
    return [
        {
            f"tower/variable{3 * number + part:02}": tf.constant(
                random.normal(size=(number + 1, part + 2)), tf.float32
            )
            for number in range(4)
        }
        for part in range(3)
    ]


def prefixes() -> Tensors:
    """Names of the released graph over tiny tensors: long common prefixes and several restart points."""
    units = ("/unit_1/", "/unit_10/")
    names = [
        name
        for name in weights.variables("xception_65", 21)
        if "middle_flow" in name and any(u in name for u in units)
    ]
    return {name: tf.constant([float(number)], tf.float32) for number, name in enumerate(names)}


def blocks() -> Tensors:
    """Names long and unlike enough that the index has several data blocks (TensorFlow starts one every 256 KiB)."""
    return {f"{number:03}/" + "scope/" * 400: tf.constant(number, tf.int32) for number in range(256)}


def save(prefix: Path, tensors: Tensors) -> None:
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )


def save_expected(path: Path, tensors: Tensors) -> None:
    arrays, types = {}, []
    for number, tensor in enumerate(tensors.values()):
        value = tf.convert_to_tensor(tensor)
        types.append(value.dtype.name)
        array = value.numpy()
        if value.dtype == tf.bfloat16:
            array = array.view(np.uint16)
        elif value.dtype == tf.string:
            array = np.array([text.decode() for text in array.ravel()]).reshape(array.shape)
        arrays[str(number)] = array
    np.savez_compressed(path, names=np.array(list(tensors)), dtypes=np.array(types), **arrays)


def save_sharded(prefix: Path, parts: list[Tensors], scratch: Path) -> None:
    names = [scratch / f"part{number}" for number in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        save(name, part)
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=[str(name) for name in names], destination_prefix=str(prefix))


def save_object(prefix: Path) -> Tensors:
    """A TF2 checkpoint: the names are paths through the objects, and the index holds the object graph."""
    kernel = tf.Variable(np.arange(6, dtype=np.float32).reshape(2, 3))
    root = tf.train.Checkpoint(kernel=kernel, layers=[tf.Variable([1.0, -1.0])])
    root.write(str(prefix))
    reader = tf.train.load_checkpoint(str(prefix))
    # The graph itself is a serialised message, nothing to compare with.
    names = sorted(name for name in reader.get_variable_to_shape_map() if not name.startswith("_"))
    return {name: reader.get_tensor(name) for name in names}


def save_partitioned(prefix: Path) -> Tensors:
    """TF1 variables in slices, along either axis and of unequal length, beside a whole one."""
    v1, random = tf.compat.v1, np.random.RandomState(2)
    tensors: Tensors = {
        "rows": random.normal(size=(10, 4)).astype(np.float32),
        "columns": random.normal(size=(3, 7)).astype(np.float32),
        "whole": random.normal(size=(2, 2)).astype(np.float32),
    }
    cuts = {"rows": v1.fixed_size_partitioner(3), "columns": v1.fixed_size_partitioner(2, axis=1), "whole": None}
    with tf.Graph().as_default(), v1.Session() as session:
        for name, array in tensors.items():
            v1.get_variable(
                name,
                shape=array.shape,
                partitioner=cuts[name],
                # Called for each part with its shape and its place in the whole.
                initializer=_part_of(array),
                use_resource=False,
            )
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(prefix), write_meta_graph=False, write_state=False)
    return tensors


def _part_of(array: Array) -> Any:
    def initialise(shape: Any, dtype: Any = None, partition_info: Any = None) -> Any:
        offset = partition_info.var_offset if partition_info else [0] * array.ndim
        return tf.constant(array[tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))], dtype)

    return initialise


def save_logits(name: str, variant: str, height: int, width: int, step: int = 1, cell: bool = False) -> None:
    arrays, image = reference.make_arrays(variant, 21, cell), weights.image(height, width)
    found: dict[str, Any] = {
        f"os{stride}": reference.logits(arrays, variant, image, stride)[::step, ::step].copy() for stride in (16, 8)
    }
    np.savez_compressed(FIXTURES / f"{name}.npz", size=np.array(image.shape[:2]), **found)


def save_cell() -> None:
    """The dense prediction cell alone, on a feature so large that each of its rates reaches other places of it."""
    arrays = {
        name: array
        for name, array in reference.make_arrays("xception_71", 21, cell=True).items()
        if name.startswith("meta_architecture/")
    }
    feature = tf.constant(weights.feature(45, 45, 2048)[None])
    found: dict[str, Any] = {
        f"os{stride}": reference.Network(arrays, "xception_71", stride).cell(feature).numpy()[0, ::4, ::4, ::8]
        for stride in (16, 8)
    }
    np.savez_compressed(FIXTURES / "cell.npz", size=np.array(feature.shape[1:3]), **found)


def check(prefix: Path, tensors: Tensors) -> None:
    """TensorFlow reads back what was meant."""
    reader = tf.train.load_checkpoint(str(prefix))
    for name, tensor in tensors.items():
        expected, found = np.asarray(tensor), np.asarray(reader.get_tensor(name))
        # As lists, since a string tensor's bytes are pointers; as bytes, since nan is unlike itself.
        same = found.tolist() == expected.tolist() or found.tobytes() == expected.tobytes()
        if not same or (found.dtype, found.shape) != (expected.dtype, expected.shape):
            raise ValueError(f"{prefix}: {name} reads back otherwise")


def save_blocks(scratch: Path) -> None:
    """Compressed, because only the repetition in the names makes its index large."""
    tensors = blocks()
    save(scratch / "blocks", tensors)
    check(scratch / "blocks", tensors)
    for suffix in ("index", "data-00000-of-00001"):
        content = (scratch / f"blocks.{suffix}").read_bytes()
        (FIXTURES / f"blocks.{suffix}.gz").write_bytes(gzip.compress(content, 9, mtime=0))


def main() -> None:
    shutil.rmtree(FIXTURES, ignore_errors=True)
    FIXTURES.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        made: dict[str, Tensors] = {"dtypes": dtypes(), "shapes": shapes(), "prefixes": prefixes()}
        for name, tensors in made.items():
            save(FIXTURES / name, tensors)
        parts = shards()
        save_sharded(FIXTURES / "shards", parts, scratch)
        made["shards"] = {name: tensor for part in parts for name, tensor in part.items()}
        made["object"] = save_object(FIXTURES / "object")
        made["partitioned"] = save_partitioned(FIXTURES / "partitioned")
        for name, tensors in made.items():
            check(FIXTURES / name, tensors)
            save_expected(FIXTURES / f"{name}.npz", tensors)
        save_blocks(scratch)
    save_logits("logits_65", "xception_65", 65, 65)
    save_logits("logits_65_wide", "xception_65", 65, 321, step=2)
    save_logits("logits_41", "xception_41", 33, 33)
    save_logits("logits_71", "xception_71", 33, 33)
    save_logits("logits_71_cell", "xception_71", 33, 33, cell=True)
    save_logits("logits_mobilenet_v2", "mobilenet_v2", 97, 65)
    save_logits("logits_mobilenet_v2_dm05", "mobilenet_v2_dm05", 97, 65)
    save_cell()


if __name__ == "__main__":
    main()
