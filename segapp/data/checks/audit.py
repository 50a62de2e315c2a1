"""Finds what makes people's training fail before it does, and says whether the data are fit to train on."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

from segapp.base.errors import number_of
from segapp.data.checks.finding import SEVERITIES, Finding
from segapp.data.checks.findings import class_lists, find
from segapp.data.checks.inspection import AuditedSet, inspect_set
from segapp.data.class_lists import joined
from segapp.data.dataset import Role, SegmentationDataset
from segapp.data.loading.balance import class_weights
from segapp.data.pairs import Unpaired


@dataclass(frozen=True)
class Audit:
    """The two sets as they were looked at, and all that ails them, the worst first."""

    train: AuditedSet
    val: AuditedSet
    findings: list[Finding]

    @property
    def fit(self) -> bool:
        """Whether training can be expected to work."""
        return not any(finding.severity == "error" for finding in self.findings)

    @property
    def verdict(self) -> str:
        """One line: whether to train on the sets."""
        numbers = {severity: sum(each.severity == severity for each in self.findings) for severity in SEVERITIES}
        told = [number_of(number, severity) for severity, number in numbers.items() if number]
        if not self.fit:
            first = self.findings[0]
            return f"not fit: {told[0]}, first {first.title}" + (f": {first.files[0]}" if first.files else "")
        train, val = self.train.dataset, self.val.dataset
        size = f"{len(train)} + {len(val)} images, {len(train.classes)} classes"
        return f"fit to train on: {size}; {', '.join(told) or 'nothing found'}"

    def pictures(self, number: int) -> list[tuple[AuditedSet, int, str]]:
        """Up to `number` different images worth looking at: set, index, and why it was chosen.

        Those of findings first, then of classes, rarest first, then others, spread evenly.
        """
        train, val = self.train, self.val
        chosen: dict[tuple[Role, int], tuple[AuditedSet, int, str]] = {}
        sets = {train.role: train, val.role: val}
        for finding in self.findings:
            for role, index in finding.pictures:
                chosen.setdefault((role, index), (sets[role], index, finding.title))
        images = train.class_images
        for kind in np.argsort(images, kind="stable").tolist():
            if images[kind]:
                pixels = train.counts[:, kind].copy()
                pixels[[index for role, index in chosen if role == train.role]] = 0
                index = int(pixels.argmax())
                if pixels[index]:
                    why = f"{train.dataset.classes[kind]}, in {number_of(int(images[kind]), 'image')} of train"
                    chosen[train.role, index] = (train, index, why)
        for each in (val, train):
            total = len(each.dataset)
            for index in np.linspace(0, total - 1, number, dtype=int).tolist() if total else ():
                chosen.setdefault((each.role, index), (each, index, each.role))
        return list(chosen.values())[:number]

    def as_data(self) -> dict[str, object]:
        """For programs: the verdict, class frequencies and weights, and every finding with all its files."""
        classes = self.train.dataset.classes
        weights = class_weights(self.train.counts, len(classes))
        return {
            "verdict": self.verdict,
            "fit": self.fit,
            "sets": {
                each.role: {
                    "name": each.dataset.name,
                    "images": len(each.dataset),
                    "class_pixels": dict(zip(classes, each.class_pixels.tolist(), strict=True)),
                    "class_images": dict(zip(classes, each.class_images.tolist(), strict=True)),
                }
                for each in (self.train, self.val)
            },
            "class_weights": dict(zip(classes, weights.tolist(), strict=True)),
            "findings": [
                {key: value for key, value in asdict(each).items() if key != "pictures"} for each in self.findings
            ],
        }


def audit(train: SegmentationDataset, val: SegmentationDataset, unpaired: Iterable[Unpaired] = ()) -> Audit:
    """Decodes all of both sets, on all cores; `unpaired` tells of the files that are in neither."""
    for_train, for_val = joined(train, val)
    audited = inspect_set(for_train, "train"), inspect_set(for_val, "val")
    findings = [*class_lists(train, val), *find(*audited, unpaired)]
    return Audit(*audited, sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))
