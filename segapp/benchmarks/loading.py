"""How many training crops a second come from files, beside how other libraries make them?"""

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from PIL import Image, ImageOps
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from segapp.base.classes import IGNORE_INDEX
from segapp.base.config import Config
from segapp.base.errors import UserError
from segapp.benchmarks.timing import threads
from segapp.data.config import DataConfig
from segapp.data.dataset import SegmentationDataset
from segapp.data.loading.crops import TrainingStream, training_batches
from segapp.data.loading.loader import start_worker
from segapp.data.loading.memory import InMemory
from segapp.data.loading.transforms import TransformConfig
from segapp.data.packed_strings import PackedStrings

BATCH = 16
GREY = 128


class LoadingBenchmarkConfig(Config):
    """See conf/benchmark_data.yaml."""

    data: DataConfig
    transform: TransformConfig
    samples: int = Field(gt=0)
    rounds: int = Field(gt=0)


class Peer(Dataset[tuple[Tensor, Tensor]]):
    """Normalised float 3 x C x C and labels C x C, as others make them. Item n is random with the seed n.

    Args:
        dataset: its files.
        crop: C, in pixels.
        scales: of which one is drawn.
    """

    def __init__(self, dataset: SegmentationDataset, crop: int, scales: Sequence[float]) -> None:
        assert dataset.masks is not None
        self.images, self.masks = dataset.images, dataset.masks
        self.crop = crop
        self.scales = scales

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        index = position % len(self.images)
        return self.load(str(self.images[index]), str(self.masks[index]), random.Random(position))

    def load(self, image: str, mask: str, rng: random.Random) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class Albumentations(Peer):
    """The same steps one after the other, each on the whole image."""

    def __init__(self, dataset: SegmentationDataset, crop: int, scales: Sequence[float]) -> None:
        super().__init__(dataset, crop, scales)
        self.transform = A.Compose(
            [
                A.OneOf([A.RandomScale((scale - 1, scale - 1), p=1) for scale in scales], p=1),
                A.PadIfNeeded(crop, crop, position="top_left", border_mode=0, fill=GREY, fill_mask=IGNORE_INDEX),
                A.RandomCrop(crop, crop),
                A.HorizontalFlip(p=0.5),
                A.Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
                ToTensorV2(),
            ]
        )

    def load(self, image: str, mask: str, rng: random.Random) -> tuple[Tensor, Tensor]:
        pixels = cv2.cvtColor(cv2.imread(image), cv2.COLOR_BGR2RGB)  # type: ignore[arg-type]
        self.transform.set_random_seed(rng.getrandbits(32))
        out = self.transform(image=pixels, mask=np.array(Image.open(mask)))
        return out["image"], out["mask"]


class TorchvisionV2(Peer):
    """torchvision.transforms.v2 on tensors."""

    def load(self, image: str, mask: str, rng: random.Random) -> tuple[Tensor, Tensor]:
        to = v2.functional
        pair = to.pil_to_tensor(Image.open(image).convert("RGB")), to.pil_to_tensor(Image.open(mask))
        pixels, labels = tv_tensors.Image(pair[0]), tv_tensors.Mask(pair[1])
        scale = rng.choice(self.scales)
        size = [round(length * scale) for length in pixels.shape[1:]]
        pixels, labels = to.resize(pixels, size), to.resize(labels, size)
        pad = [0, 0, max(0, self.crop - size[1]), max(0, self.crop - size[0])]
        pixels, labels = to.pad(pixels, pad, fill=GREY), to.pad(labels, pad, fill=IGNORE_INDEX)
        top = rng.randint(0, pixels.shape[1] - self.crop)
        left = rng.randint(0, pixels.shape[2] - self.crop)
        pixels, labels = (to.crop(each, top, left, self.crop, self.crop) for each in (pixels, labels))
        if rng.random() < 0.5:
            pixels, labels = to.horizontal_flip(pixels), to.horizontal_flip(labels)
        pixels = to.normalize(to.to_dtype(pixels, torch.float32, scale=True), [0.5] * 3, [0.5] * 3)
        return pixels.as_subclass(Tensor), labels.as_subclass(Tensor)[0]


class PillowAndNumpy(Peer):
    """As in most PyTorch ports of DeepLab: every step by Pillow, then numpy to normalised float."""

    def load(self, image: str, mask: str, rng: random.Random) -> tuple[Tensor, Tensor]:
        pixels: Image.Image = Image.open(image).convert("RGB")
        labels: Image.Image = Image.open(mask)
        scale = rng.choice(self.scales)
        size = round(pixels.width * scale), round(pixels.height * scale)
        pixels = pixels.resize(size, Image.Resampling.BILINEAR)
        labels = labels.resize(size, Image.Resampling.NEAREST)
        if min(size) < self.crop:
            border = (0, 0, max(0, self.crop - size[0]), max(0, self.crop - size[1]))
            pixels = ImageOps.expand(pixels, border, fill=(GREY, GREY, GREY))
            labels = ImageOps.expand(labels, border, fill=IGNORE_INDEX)
        left, top = rng.randint(0, pixels.width - self.crop), rng.randint(0, pixels.height - self.crop)
        box = (left, top, left + self.crop, top + self.crop)
        pixels, labels = pixels.crop(box), labels.crop(box)
        if rng.random() < 0.5:
            pixels = pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            labels = labels.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        floats = np.array(pixels).astype(np.float32)
        floats /= 255
        floats -= (0.5, 0.5, 0.5)
        floats /= (0.5, 0.5, 0.5)
        floats = floats.transpose(2, 0, 1)
        return torch.from_numpy(floats).float(), torch.from_numpy(np.array(labels).astype(np.float32)).float()


PEERS = {
    "albumentations, plain order": Albumentations,
    "torchvision.transforms.v2": TorchvisionV2,
    "PIL and numpy": PillowAndNumpy,
}

Run = Callable[[int, int], Iterator[Any]]
"""From the first position and the number of batches to the batches."""


def time_loading(config: LoadingBenchmarkConfig) -> None:
    """Prints samples a second: of CPU time in this process with one thread, then of time with two worker processes.

    CPU time is what one core needs, and moves little when others use the machine. All contenders take their turn in
    each round; the ratio is of medians.

    Raises:
        UserError: no masks; an image cannot be read; the transform is not ScaleCropFlip alone, which the peers copy.
    """
    dataset, transform = config.data.dataset("train"), config.transform
    if dataset.masks is None:
        raise UserError(f"{dataset.name}: its images have no masks")
    if [list(step) for step in transform.train] != [["ScaleCropFlip"]]:
        raise UserError("the peers do what ScaleCropFlip does: take transform=paper")
    scales = (transform.train[0]["ScaleCropFlip"] or {})["scales"]
    ours = {
        "segapp": TrainingStream(dataset, transform, seed=0),
        "segapp, decoded images in memory": TrainingStream(held(dataset, config.samples), transform, seed=0),
    }
    peers = {name: peer(dataset, transform.crop, scales) for name, peer in PEERS.items()}
    batches = max(2, config.samples // BATCH)
    print(
        f"{dataset.name}, {len(dataset)} images, crops of {transform.crop}; "
        f"{config.rounds} rounds of {batches * BATCH}"
    )
    for workers in (0, 2):
        runs: dict[str, Run] = {}
        for name, stream in ours.items():
            runs[name] = _ours(stream, workers)
        for name, peer in peers.items():
            runs[name] = _peer(peer, workers)
        if not workers:
            runs["segapp, decoding alone"] = _decoding(dataset)
        with threads(1):  # as in a worker
            rates = _measure(runs, batches, config.rounds, time.perf_counter if workers else time.process_time)
        print(f"{f'{workers} workers' if workers else 'in-process, CPU time':34} samples/s   min     max   segapp x")
        base = statistics.median(rates["segapp"])
        for name, each in rates.items():
            median = statistics.median(each)
            print(f"{name:34} {median:9.0f} {min(each):7.0f} {max(each):7.0f} {base / median:8.2f}")
        if not workers:
            share = base / statistics.median(rates["segapp, decoding alone"])
            print(f"decoding takes {share:.0%} of a sample")


def held(dataset: SegmentationDataset, number: int) -> InMemory:
    """The first `number` samples, all of them read."""
    masks = dataset.masks[:number] if dataset.masks is not None else None
    ids, images = PackedStrings(dataset.ids[:number]), dataset.images[:number]
    memory = InMemory(SegmentationDataset(dataset.name, dataset.classes, ids, images, masks, dataset.read_label))
    for index in range(len(memory)):
        memory[index]
    return memory


def _measure(runs: dict[str, Run], batches: int, rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Samples a second of each, by round; the time runs from the first batch, which waits for workers to start."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for round in range(rounds + 1):  # the first warms up and does not count
        for name, run in runs.items():
            stream = run(round * batches, batches)
            next(stream)
            start = clock()
            for _ in stream:
                pass
            if round:
                rates[name].append((batches - 1) * BATCH / (clock() - start))
    return rates


def _ours(stream: TrainingStream, workers: int) -> Run:
    def run(start: int, number: int) -> Iterator[Any]:
        return training_batches(
            stream, start=start, stop=start + number, batch_size=BATCH, workers=workers, pin_memory=False
        )

    return run


def _peer(peer: Peer, workers: int) -> Run:
    def run(start: int, number: int) -> Iterator[Any]:
        positions = range(start * BATCH, (start + number) * BATCH)
        return iter(DataLoader(peer, BATCH, sampler=positions, num_workers=workers, worker_init_fn=start_worker))

    return run


def _decoding(dataset: SegmentationDataset) -> Run:
    def run(start: int, number: int) -> Iterator[Any]:
        for batch in range(start, start + number):
            yield [dataset[position % len(dataset)] for position in range(batch * BATCH, (batch + 1) * BATCH)]

    return run
