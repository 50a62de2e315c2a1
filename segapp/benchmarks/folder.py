"""How many photos of a folder are labelled in a second, end to end, and which step decides it?"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from PIL import Image
from pydantic import Field
from torch import nn

from segapp.base.classes import voc_palette
from segapp.base.config import UserPath
from segapp.base.errors import UserError
from segapp.base.images import MAX_PIXELS, read_image
from segapp.benchmarks.contenders import CONTENDERS
from segapp.benchmarks.timing import machine, table
from segapp.data.pairs import is_picture, names_below
from segapp.inference.open import PredictorOptions
from segapp.inference.predictor import Predictor
from segapp.inference.saving import THREADS, label_files
from segapp.inference.summary import STEPS, ImageRow
from segapp.models.deeplabv3plus import DeepLabV3PlusConfig
from segapp.weights.checkpoint import completed
from segapp.weights.description import Description
from segapp.weights.find import find_checkpoint

KINDS = ("mask", "overlay")
SIDE = 512
"""Of smp's images: its networks take multiples of 16."""
OURS, ALONE, SMP = "segapp predict", "the network alone", "an smp script"


class FolderBenchmarkConfig(PredictorOptions):
    """See conf/benchmark_folder.yaml."""

    images: UserPath | None
    most: int = Field(gt=0)
    rounds: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    checkpoint: str
    offline: bool


def time_folder(config: FolderBenchmarkConfig) -> None:
    """Prints images a second of predict with masks and overlays, of its network alone, and of a script as smp's users
    write it, which take turns; then what each step of predict takes.

    Raises:
        UserError: no folder of images.
    """
    if config.images is None or not config.images.is_dir():
        raise UserError(f"images={config.images}: name a folder of photos")
    paths = [config.images / name for name in sorted(filter(is_picture, names_below(config.images)))[: config.most]]
    if not paths:
        raise UserError(f"images={config.images}: no images in this folder")
    predictor, info = config.open(find_checkpoint(config.checkpoint, offline=config.offline))
    rows: list[ImageRow] = []

    def ours(folder: Path) -> float:
        begin = time.perf_counter()
        label_files(
            paths, predictor, folder, KINDS, max_pixels=MAX_PIXELS, batch_size=config.batch_size, record=rows.append
        )
        return time.perf_counter() - begin

    runs: dict[str, Callable[[Path], float]] = {OURS: ours, ALONE: lambda _: network_seconds(paths, predictor)}
    if (peer := _smp(info, predictor.device)) is not None:
        runs[SMP] = lambda folder: smp_seconds(paths, peer, predictor.device, folder)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(config.rounds):
        for name, run in runs.items():
            with tempfile.TemporaryDirectory() as folder:
                seconds[name].append(run(Path(folder)))
    print(f"{len(paths)} images, {predictor.protocol}; {config.rounds} rounds\n{machine(predictor.device)}\n")
    print_rates(seconds, len(paths))
    print()
    print_steps(rows, statistics.median(seconds[OURS]) / len(paths))


def print_rates(seconds: dict[str, list[float]], number: int) -> None:
    base = statistics.median(seconds[OURS])
    lines = []
    for name, each in seconds.items():
        median = statistics.median(each)
        lines.append([name, f"{number / median:.2f}", f"{min(each):.2f}", f"{max(each):.2f}", f"{median / base:.2f}"])
    print(table(["masks and overlays", "images/s", "least s", "most s", f"x {OURS}"], lines))
    print(f"\npredict reaches {statistics.median(seconds[ALONE]) / base:.0%} of what its network alone can do")


def print_steps(rows: Sequence[ImageRow], whole: float) -> None:
    """What each step takes of an image, and which of them the others wait for.

    Args:
        whole: seconds of an image, end to end.
    """
    means = {step: statistics.fmean(getattr(row.seconds, step) for row in rows) for step in STEPS}
    lines = [[step, f"{mean * 1e3:.1f}", f"{mean / whole:.0%}"] for step, mean in means.items()]
    print(table(["step", "ms an image", "of the whole"], lines))
    aside = {step: mean / THREADS for step, mean in means.items() if step != "compute"}
    slowest = max(aside, key=lambda step: aside[step])
    decides = "compute" if means["compute"] >= sum(aside.values()) else slowest
    print(f"\n{decides} decides; the others run beside it, in {THREADS} threads")


def network_seconds(paths: Sequence[Path], predictor: Predictor) -> float:
    """Of labelling alone, with nothing else at work; reading is not counted."""
    total = 0.0
    for path in paths:
        image = read_image(path, decoding=predictor.decoding)
        begin = time.perf_counter()
        predictor.predict([image])[0].mask()
        total += time.perf_counter() - begin
    return total


def _smp(info: Description, device: torch.device) -> nn.Module | None:
    """Its network like the checkpoint's, with random weights; None, and a line that says why, where there is none."""
    try:
        if not CONTENDERS["smp"].installed:
            raise UserError("it is not installed; pip install 'segapp[benchmark]'")
        network = completed(info).network
        assert isinstance(network, DeepLabV3PlusConfig)
        return CONTENDERS["smp"].network(network, len(info.classes), False).to(device).eval()
    except UserError as error:
        print(f"{SMP} is left out: {error}")
        return None


def smp_seconds(paths: Sequence[Path], network: nn.Module, device: torch.device, folder: Path) -> float:
    """Of a script as most people write it: one image after the other is read, computed, drawn and written."""
    begin = time.perf_counter()
    transform = A.Compose(
        [A.LongestMaxSize(SIDE), A.PadIfNeeded(SIDE, SIDE, position="top_left"), A.Normalize(), ToTensorV2()]
    )
    palette = voc_palette()
    for path in paths:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)  # type: ignore[arg-type]
        height, width = image.shape[:2]
        with torch.inference_mode():
            logits = network(transform(image=image)["image"][None].to(device))
        labels = logits.argmax(1)[0].byte().cpu().numpy()
        scale = SIDE / max(height, width)
        labels = labels[: max(1, round(height * scale)), : max(1, round(width * scale))]
        labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
        mask = Image.fromarray(labels)
        mask.putpalette(palette.tobytes())
        mask.save(folder / f"{path.stem}.png")
        shown = cv2.addWeighted(image, 0.45, palette[labels], 0.55, 0)
        Image.fromarray(np.asarray(shown, np.uint8)).save(folder / f"{path.stem}.jpg")
    return time.perf_counter() - begin
