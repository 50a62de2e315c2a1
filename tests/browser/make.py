"""The four pages as a user gets them, of small data with names that are long, foreign and hostile."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from PIL import Image

from segapp.base.classes import voc_palette
from segapp.base.errors import UserError
from segapp.base.masks import write_mask
from segapp.data.checks.audit import Audit, audit
from segapp.data.checks.finding import Finding
from segapp.data.dataset import Role, Sample, SegmentationDataset
from segapp.data.packed_strings import PackedStrings
from segapp.evaluation.evaluate import Evaluation, evaluate
from segapp.inference.prediction import Prediction
from segapp.reports.audit import write_audit
from segapp.reports.compare import write_comparison
from segapp.reports.results import write_results
from segapp.reports.run import write_run_page
from segapp.runs.history import read_run
from tests.evaluation.test_evaluate import CONFIG
from tests.training_runs import make_run, train_line, val_line

EVIL = "<img src=x onerror=document.attacked=1>"
EVIL_SCRIPT = "</script><script>document.attacked=1</script>"
LONG = "a thing with a name of very many words that nobody would call short"
UNBROKEN = "Donaudampfschifffahrtsgesellschaftskapitaen"
ABSENT = "never seen"
CLASSES = (
    *("background", LONG, UNBROKEN, EVIL, EVIL_SCRIPT, ABSENT, "Straße", "диван"),
    *(f"class {index}" for index in range(8, 21)),
)
HEIGHT, WIDTH, IMAGES = 96, 128, 12


def make_dataset(folder: Path, role: Role) -> SegmentationDataset:
    """Boxes of sides from 2 to 60 on a background, void around them; ABSENT in none; the last image is broken."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(get_args(Role).index(role))
    present = [index for index, name in enumerate(CLASSES) if index and name != ABSENT]
    images, masks = ([folder / f"{index}{suffix}" for index in range(IMAGES)] for suffix in (".jpg", ".png"))
    for index in range(IMAGES):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        for box, side in enumerate((60, 30, 20, 8, 4, 2)):
            top, left = random.integers(0, HEIGHT - side), random.integers(0, WIDTH - side)
            mask[max(0, top - 1) : top + side + 1, max(0, left - 1) : left + side + 1] = 255
            mask[top : top + side, left : left + side] = present[(6 * index + box) % len(present)]
        write_mask(masks[index], mask, voc_palette())
        noise = random.integers(0, 60, (HEIGHT, WIDTH, 3))
        Image.fromarray((mask[..., None] * 7 % 190 + noise).astype(np.uint8)).save(images[index])
    images[-1].write_bytes(b"broken")
    ids = [EVIL, EVIL_SCRIPT, LONG, 3 * UNBROKEN, *(f"2008_{index:06}" for index in range(4, IMAGES))]
    return SegmentationDataset(f"{role} of {EVIL}", CLASSES, PackedStrings(ids), images, masks)


def make_evaluation(dataset: SegmentationDataset) -> Evaluation:
    """Of a prediction that lies a little beside the truth, and misses one class wholly."""

    def label(samples: Sequence[Sample]) -> list[Prediction | UserError]:
        found: list[Prediction | UserError] = []
        for sample in samples:
            assert sample.label is not None
            moved = np.roll(sample.label, 3, axis=1)
            moved[(moved == 255) | (moved == 9)] = 0
            lost = sample.id == dataset.ids[IMAGES - 2]
            found.append(UserError(EVIL) if lost else Prediction(torch.from_numpy(moved)))
        return found

    config = CONFIG.model_copy(update={"examples": 7, "trimap_widths": (1, 2, 4, 8, 12, 16)})
    return evaluate(dataset, label, protocol=f"moved, {EVIL_SCRIPT}", config=config, workers=0)


def make_lines(seed: int, speed: float) -> list[dict[str, object]]:
    """100 lines of training, a validation after each ten; ABSENT has no IoU."""
    random = np.random.default_rng(seed)
    lines, time = [], 0.0
    for iteration in range(10, 1001, 10):
        time += 60 / speed
        loss = 3 * 0.998**iteration + 0.3 * random.random()
        lines.append(train_line(iteration, time, loss, lr=0.01 * (1 - iteration / 1000), images_per_second=speed))
        if iteration % 100 == 0:
            iou = {name: None if name == ABSENT else float(random.uniform(0, iteration / 1000)) for name in CLASSES}
            time += 20
            lines.append(val_line(iteration, time, iteration / 2000, iou, ema_miou=iteration / 1900))
    return lines


def make_runs(root: Path) -> list[Path]:
    folders = []
    for index, name in enumerate((EVIL, 4 * UNBROKEN, LONG)):
        config = {"name": EVIL, "iterations": 1000, "optimizer": {"lr": 0.01 * index, UNBROKEN: EVIL_SCRIPT}}
        environment = {"device": EVIL_SCRIPT, "parameters": 41_055_413 + index, "command": 9 * UNBROKEN}
        folders.append(make_run(root / name, make_lines(index, 20.0 + index), config, environment))
        (folders[-1] / "pictures").mkdir()
        for iteration in (100, 200, 300):
            Image.new("RGB", (600, 400), (iteration // 2, 80, 80)).save(folders[-1] / f"pictures/{iteration:06}.png")
    return folders


def make_pages(root: Path) -> dict[str, Path]:
    """Files by name: report, run, compare, audit."""
    train, val = make_dataset(root / "train", "train"), make_dataset(root / "val", "val")
    source = {"checkpoint": EVIL, "data": 3 * UNBROKEN}
    (root / "results").mkdir()
    write_results(root / "results", make_evaluation(val), CONFIG, title=EVIL_SCRIPT, source=source)

    runs = make_runs(root / "runs")
    write_run_page(runs[0])
    write_comparison(root / "compare.html", [read_run(run) for run in runs], source)

    audited = audit(train, val)
    many = tuple(f"{EVIL} {index}" for index in range(30))
    long = Finding("warning", "long", f"{LONG} {UNBROKEN}", EVIL_SCRIPT, len(many), many, (("val", 0),))
    result = Audit(audited.train, audited.val, [*audited.findings, long])
    write_audit(root, result, samples=6, provenance=source)
    return {
        "report": root / "results" / "report.html",
        "run": runs[0] / "run.html",
        "compare": root / "compare.html",
        "audit": root / "audit.html",
    }
