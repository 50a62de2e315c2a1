"""Which runtime labels images fastest, ours and peers' side by side? On a CPU, a table for each case."""

import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from segapp.base.config import Config, UserPath, Words
from segapp.base.errors import UserError
from segapp.base.files import write_text
from segapp.benchmarks.contenders import smp, timm_encoder
from segapp.benchmarks.memory import peak_memory
from segapp.benchmarks.timing import Length, machine, milliseconds, random_images, seconds_of, table, threads
from segapp.inference.runtimes import exported_runtime
from segapp.models.deeplabv3plus import DeepLabV3PlusConfig
from segapp.models.encoders.interface import INCEPTION
from segapp.models.layers import resize
from segapp.runs.environment import environment
from segapp.runtimes.interface import Runtime
from segapp.runtimes.onnxruntime import open_onnx
from segapp.runtimes.pytorch import PyTorchRuntime
from segapp.weights.checkpoint import CheckpointInfo
from segapp.weights.exported.description import ExportOptions, ExportPrecision
from segapp.weights.exported.write import write_exported

CPU = torch.device("cpu")
INSTRUCTIONS = re.compile(
    r"\b(avx2|avx512f|avx512_vnni|avx_vnni|avx512_bf16|amx_int8|amx_bf16|asimddp|bf16|i8mm|sve)\b"
)
"""Names in /proc/cpuinfo of what decides how fast a network runs."""

Run = Callable[[Tensor], object]


class RuntimesBenchmarkConfig(Config):
    """See conf/benchmark_runtimes.yaml."""

    model: DeepLabV3PlusConfig
    size: tuple[Length, Length]
    classes: int = Field(ge=2, le=255)
    output_strides: tuple[int, ...] = Field(min_length=1)
    threads: tuple[Length, ...] = Field(min_length=1)
    batch_sizes: tuple[Length, ...] = Field(min_length=1)
    rounds: int = Field(gt=0)
    contenders: Words | None
    memory: bool
    output: UserPath | None

    @field_validator("contenders")
    @classmethod
    def _known(cls, names: Words | None) -> Words | None:
        for name in names or ():
            if name not in CONTENDERS:
                raise ValueError(f"{name} is none of {', '.join(CONTENDERS)}")
        return names


@dataclass(frozen=True)
class Case:
    """What contenders are made for.

    Args:
        folder: where files that are exported stay for the next thread count and for other processes.
    """

    model: DeepLabV3PlusConfig
    classes: int
    size: tuple[int, int]
    folder: Path

    def file(self, name: str, write: Callable[[Path], None]) -> Path:
        path = self.folder / f"output_stride_{self.model.output_stride}" / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            write(path)
        return path

    def images(self, number: int) -> Tensor:
        return random_images(number, self.size, CPU, torch.channels_last)

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return self.model.build(self.classes).eval()


def _in_full_size(runtime: Runtime) -> Run:
    return lambda images: resize(runtime(images), (images.shape[2], images.shape[3]))


def ours_in_torch(case: Case, *, compiled: bool = False) -> Run:
    names = tuple(map(str, range(case.classes)))
    runtime = PyTorchRuntime(case.network(), names, device=CPU, precision="float32", fold=True)  # type: ignore[arg-type]
    if compiled:
        runtime.model = torch.compile(runtime.model)  # type: ignore[assignment]
    return _in_full_size(runtime)


def ours_exported(case: Case, *, suffix: str, precision: ExportPrecision = "float32", bfloat16: bool = False) -> Run:
    info = CheckpointInfo(
        network=case.model, classes=tuple(map(str, range(case.classes))), normalization=INCEPTION, trained_on=()
    )
    options = ExportOptions(precision=precision)

    def write(path: Path) -> None:
        calibration = [each.contiguous().numpy() for each in case.images(2)[:, None]]
        write_exported(path, case.network(), info, options, calibration)  # type: ignore[arg-type]

    path = case.file(f"segapp_{precision}{suffix}", write)
    return _in_full_size(exported_runtime(path, info, options, precision="bfloat16" if bfloat16 else "auto", own=True))


def smp_in_torch(case: Case, *, compiled: bool = False) -> Run:
    network = smp(case.model, case.classes, False).eval().to(memory_format=torch.channels_last)
    return torch.compile(network) if compiled else network


def smp_exported(case: Case) -> Run:
    """As its users export it: by torch, for images of one size, any number of them."""

    def write(path: Path) -> None:
        network, images = smp(case.model, case.classes, False).eval(), case.images(2).contiguous()
        shapes = ({0: torch.export.Dim.DYNAMIC},)
        torch.onnx.export(network, (images,), path, dynamo=True, dynamic_shapes=shapes, verbose=False)

    compute = open_onnx(case.file("smp.onnx", write))
    return lambda images: compute(images.contiguous().numpy())


def timm_encoder_in_torch(case: Case) -> Run:
    network = timm_encoder(case.model, case.classes, False).eval()
    return network.to(memory_format=torch.channels_last)


CONTENDERS: dict[str, Callable[[Case], Run]] = {
    "smp": smp_in_torch,
    "smp-compiled": partial(smp_in_torch, compiled=True),
    "smp-onnxruntime": smp_exported,
    "timm-encoder": timm_encoder_in_torch,
    "torch": ours_in_torch,
    "torch-compiled": partial(ours_in_torch, compiled=True),
    "onnxruntime": partial(ours_exported, suffix=".onnx"),
    "onnxruntime-int8": partial(ours_exported, suffix=".onnx", precision="int8"),
    "openvino": partial(ours_exported, suffix=".xml"),
    "openvino-bfloat16": partial(ours_exported, suffix=".xml", bfloat16=True),
    "openvino-int8": partial(ours_exported, suffix=".xml", precision="int8"),
}
"""smp and timm in channels_last. Ours brings logits to the images' size, as smp does, with BN folded in PyTorch."""


def time_runtimes(config: RuntimesBenchmarkConfig) -> None:
    """Prints a table for each output stride, number of threads and batch size, and writes them all.

    Raises:
        UserError: no contender can be timed.
    """
    lines = [f"`{environment()['command']}`, {time.strftime('%Y-%m-%d')}, {processor()}, {config.rounds} rounds"]
    print(lines[0])
    cases = product(config.output_strides, config.threads)
    with TemporaryDirectory(prefix="segapp-benchmark-") as folder:
        for output_stride, number in cases:
            model = DeepLabV3PlusConfig.model_validate(config.model.model_dump() | {"output_stride": output_stride})
            case = Case(model, config.classes, config.size, Path(folder))
            with threads(number):
                runs = dict(_opened(case, config.contenders or tuple(CONTENDERS)))
                if not runs:
                    raise UserError("no contender is left to time")
                for batch_size in config.batch_sizes:
                    title = f"output stride {output_stride}, {batch_size} x {config.size[0]} x {config.size[1]}, "
                    rows = compared(case, runs, batch_size, config.rounds, memory=config.memory)
                    lines += ["", title + machine(CPU), "", rows]
                    print("\n".join(lines[-4:]), flush=True)
                    if config.output is not None:
                        write_text(config.output, "\n".join(lines) + "\n")


def _opened(case: Case, names: Words) -> Iterator[tuple[str, Run]]:
    """Each contender that runs one image; why another does not is printed."""
    for name in names:
        try:
            run = CONTENDERS[name](case)
            with torch.inference_mode():
                run(case.images(1))
        except Exception as error:  # whatever a peer, a compiler or an exporter raises
            print(f"{name} is left out: {' '.join(str(error).split())[:200]}")
        else:
            yield name, run


def compared(case: Case, runs: dict[str, Run], batch_size: int, rounds: int, *, memory: bool) -> str:
    """The table of one case: medians of rounds in which each takes its turn, and how often it is the first's speed."""
    images = case.images(batch_size)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for run in runs.values():
            run(images)
        for _ in range(rounds):
            for name, run in runs.items():
                seconds[name].append(seconds_of(partial(run, images), CPU, time.perf_counter))
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    first, base = next(iter(medians.items()))
    rows = []
    for name, median in medians.items():
        peak = ["-"]
        if memory and not name.endswith("-compiled"):  # the compiler's would count
            number = torch.get_num_threads()
            peak = [f"{peak_memory(name, _step, name, case, batch_size, number) / 1e6:.0f}"]
        rows.append([name, *milliseconds(seconds[name]), f"{batch_size / median:.2f}", f"{base / median:.2f}", *peak])
    return table(["runtime", "median ms", "min", "max", "images/s", f"speed of {first}", "peak MB"], rows)


def _step(name: str, case: Case, batch_size: int, number: int) -> Callable[[], object]:
    torch.set_num_threads(number)
    run, images = CONTENDERS[name](case), case.images(batch_size)
    return torch.inference_mode()(partial(run, images))


def processor() -> str:
    """Its name and its instruction sets."""
    file = Path("/proc/cpuinfo")
    text = file.read_text() if file.exists() else ""
    named = re.search(r"model name\s*: (.*)", text)
    name = named[1] if named else platform.processor() or platform.machine()
    return " ".join([name + ",", *sorted({*INSTRUCTIONS.findall(text)})]).rstrip(",")
