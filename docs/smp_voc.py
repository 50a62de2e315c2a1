"""What users of segmentation_models.pytorch write to train its DeepLabV3Plus on VOC, for the table in benchmarks.md.

    uv run --extra benchmark python docs/smp_voc.py VOC2012 mobilenetv2_8bit.safetensors DIR ITERATIONS

The model, the loss, the optimizer and the schedule are those of its own CamVid example; the encoder starts from the
same file as ours, and stays as it is, as ours does: BN is folded into its convs. Masks of val are written to
DIR/masks, which `segapp eval predictions=DIR/masks` scores.
"""

import sys
import time
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from segapp.weights.checkpoint import load_model

CROP, BATCH = 384, 8  # it takes multiples of 16 alone


class VOC(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    def __init__(self, root: Path, split: str, images: int) -> None:
        self.root, self.images = root, images
        self.names = (root / f"ImageSets/Segmentation/{split}.txt").read_text().split()
        self.order = np.concatenate([np.random.default_rng(each).permutation(len(self.names)) for each in range(99)])
        self.augment = A.Compose(
            [
                A.RandomScale((-0.5, 0.25), p=1),
                A.PadIfNeeded(CROP, CROP, border_mode=cv2.BORDER_CONSTANT, fill=128, fill_mask=255),
                A.RandomCrop(CROP, CROP),
                A.HorizontalFlip(),
            ]
        )

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        name = self.names[self.order[index]]
        image = np.array(Image.open(self.root / f"JPEGImages/{name}.jpg").convert("RGB"))
        mask = np.array(Image.open(self.root / f"SegmentationClassAug/{name}.png"))
        seen = self.augment(image=image, mask=mask)
        return as_input(seen["image"]), torch.from_numpy(seen["mask"]).long()


def as_input(image: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 127.5 - 1


def load_encoder(encoder: Any, path: Path) -> None:
    """The same tensors in the same order; the last 1x1 conv to 1280 channels, which DeepLab leaves out, stays new.

    Two corrections, without which it is another network than the weights' own: BN's eps, and the rate of the unit
    that had the stride, which is 1 there and 2 in smp.
    """
    ours, _ = load_model(path)
    theirs = encoder.state_dict()
    known = [name for name in theirs if not name.startswith("features.18.")]
    for name, tensor in zip(known, ours.encoder.state_dict().values(), strict=True):
        theirs[name].copy_(tensor + 1e-3 - 1e-5 if name.endswith("running_var") else tensor)
    depthwise = encoder.features[14].conv[1][0]
    depthwise.dilation = depthwise.padding = (1, 1)


def main(root: Path, weights: Path, output: Path, iterations: int) -> None:
    torch.manual_seed(0)
    model = smp.DeepLabV3Plus("mobilenet_v2", encoder_weights=None, classes=21)
    load_encoder(model.encoder, weights)
    model.encoder.features[:18].requires_grad_(False)
    loss_of = smp.losses.DiceLoss(smp.losses.MULTICLASS_MODE, from_logits=True, ignore_index=255)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=iterations, eta_min=1e-5)
    start = time.process_time()
    for done, (images, masks) in enumerate(DataLoader(VOC(root, "trainaug_large", iterations * BATCH), BATCH), 1):
        model.train()
        model.encoder.features[:18].eval()
        optimizer.zero_grad()
        loss = loss_of(model(images), masks)
        loss.backward()
        optimizer.step()
        schedule.step()
        if done % 20 == 0:
            seconds = time.process_time() - start
            print(f"{done} of {iterations}: loss {loss.item():.3f}, {seconds:.0f} s of CPU", flush=True)

    model.eval()
    (output / "masks").mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), output / "model.pt")
    for name in (root / "ImageSets/Segmentation/val.txt").read_text().split():
        image = np.array(Image.open(root / f"JPEGImages/{name}.jpg").convert("RGB"))
        height, width = image.shape[:2]
        canvas = np.full((528, 528, 3), 127.5, np.float32)
        canvas[:height, :width] = image
        with torch.inference_mode():
            labels = model(as_input(canvas)[None])[0].argmax(0).numpy().astype(np.uint8)
        Image.fromarray(labels[:height, :width]).save(output / f"masks/{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
