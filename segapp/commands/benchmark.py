"""Times the network, runtimes, training, loading, measures or predict beside peers, interleaved.

Ratios are of medians.

python tools/benchmark.py infer
python tools/benchmark.py train batch_size=16 compile=true
python tools/benchmark.py data data.root=/path/to/VOCdevkit/VOC2012 data.train=train
python tools/benchmark.py folder images=photos/ most=500
python tools/benchmark.py measures data.root=/path/to/VOCdevkit/VOC2012 compile=true
uv run --with segmentation-models-pytorch python tools/benchmark.py infer size=[512,512]
uv run --extra benchmark --extra int8 python tools/benchmark.py runtimes output=runtimes.md
"""

from collections.abc import Callable

from segapp.base.compose import compose_config, read_config
from segapp.base.errors import UserError
from segapp.benchmarks.folder import FolderBenchmarkConfig, time_folder
from segapp.benchmarks.infer import InferBenchmarkConfig, time_inference
from segapp.benchmarks.loading import LoadingBenchmarkConfig, time_loading
from segapp.benchmarks.measures import MeasuresBenchmarkConfig, time_measures
from segapp.benchmarks.runtimes import RuntimesBenchmarkConfig, time_runtimes
from segapp.benchmarks.train import TrainBenchmarkConfig, time_training
from segapp.evaluation.config import EvalConfig


def infer(overrides: list[str]) -> None:
    time_inference(read_config("benchmark_infer", overrides, InferBenchmarkConfig))


def train(overrides: list[str]) -> None:
    time_training(read_config("benchmark_train", overrides, TrainBenchmarkConfig))


def data(overrides: list[str]) -> None:
    time_loading(read_config("benchmark_data", overrides, LoadingBenchmarkConfig))


def folder(overrides: list[str]) -> None:
    time_folder(read_config("benchmark_folder", overrides, FolderBenchmarkConfig))


def measures(overrides: list[str]) -> None:
    config = read_config("benchmark_measures", overrides, MeasuresBenchmarkConfig)
    trimap_widths = EvalConfig.model_validate(compose_config("eval", [])["eval"]).trimap_widths
    time_measures(config, trimap_widths)


def runtimes(overrides: list[str]) -> None:
    time_runtimes(read_config("benchmark_runtimes", overrides, RuntimesBenchmarkConfig))


QUESTIONS: dict[str, Callable[[list[str]], None]] = {
    "infer": infer,
    "train": train,
    "data": data,
    "measures": measures,
    "folder": folder,
    "runtimes": runtimes,
}
"""By the first argument; each takes the others."""
LESS_MEMORY = "lower batch_size or size"
CONFIGS = tuple(f"benchmark_{question}" for question in QUESTIONS)


def main(arguments: list[str]) -> int:
    """Answers the question that the first argument names. Returns the exit status."""
    question = QUESTIONS.get(arguments[0]) if arguments else None
    if question is None:
        raise UserError(f"say first what to time: python tools/benchmark.py {'|'.join(QUESTIONS)} [key=value ...]")
    question(arguments[1:])
    return 0
