"""What `tools/prepare_data.py check` does."""

from dataclasses import asdict
from pathlib import Path

from pydantic import Field

from segapp.base.classes import voc_palette
from segapp.base.config import Config, UserPath, save_config
from segapp.base.files import write_json
from segapp.cli import PARTIAL, output_folder, read_config
from segapp.data import DataConfig
from segapp.data.checks.audit import UNPAIRED, AuditedSet, Finding, choose_pictures, find, look_at, verdict
from segapp.data.loading.balance import class_weights
from segapp.data.pairs import Unpaired
from segapp.reports.audit import LISTED, write_audit
from segapp.reports.results import environment


class CheckConfig(Config):
    """See conf/check_data.yaml."""

    data: DataConfig
    samples: int = Field(ge=0, le=500)
    output: UserPath | None


def check(overrides: list[str]) -> int:
    """Audits the train and val sets, and leaves a page. Returns the exit status: 0, or 1 if there are errors."""
    config = read_config("check_data", overrides, CheckConfig)
    unpaired: list[Unpaired] = []
    sets = config.data.dataset("train", unpaired.extend), config.data.dataset("val", unpaired.extend)
    with output_folder(config.output, "check", config.data.name) as output:
        train, val = look_at(sets[0], "train"), look_at(sets[1], "val")
        findings = find(train, val, unpaired)
        line = verdict(train, val, findings)
        save_config(output, config)
        write_json(output / "audit.json", {"verdict": line, **as_data(train, val, findings)})
        write_audit(
            output / "audit.html",
            title=f"Audit of {train.dataset.name} and {val.dataset.name}",
            verdict=line,
            train=train,
            val=val,
            findings=findings,
            samples=choose_pictures(train, val, findings, config.samples),
            palette=voc_palette(),
            provenance={"data": str(Path(config.data.root).resolve())} | environment(),
        )
    for finding in findings:
        print(f"{finding.severity:8} {finding.title}")
        print(f"{'':8} {finding.advice}")
        shown = LISTED if finding.kind in UNPAIRED else 3
        for file in finding.files[:shown]:
            print(f"{'':10} {file}")
        if len(finding.files) > shown:
            print(f"{'':10} and {len(finding.files) - shown} more, all in audit.json")
    print(f"page     {output / 'audit.html'}")
    print(line)
    return PARTIAL if any(finding.severity == "error" for finding in findings) else 0


def as_data(train: AuditedSet, val: AuditedSet, findings: list[Finding]) -> dict[str, object]:
    """For programs: the sets' class frequencies, the classes' weights, and every finding with all its files."""
    classes = train.dataset.classes
    weights = class_weights(train.counts, len(classes))
    return {
        "fit": not any(finding.severity == "error" for finding in findings),
        "sets": {
            each.role: {
                "name": each.dataset.name,
                "images": len(each.dataset),
                "class_pixels": dict(zip(classes, each.class_pixels.tolist(), strict=True)),
                "class_images": dict(zip(classes, each.class_images.tolist(), strict=True)),
            }
            for each in (train, val)
        },
        "class_weights": dict(zip(classes, weights.tolist(), strict=True)),
        "findings": [{key: value for key, value in asdict(each).items() if key != "pictures"} for each in findings],
    }
