"""What `tools/prepare_data.py check` does: audits the data, and leaves a page and a verdict."""

from pathlib import Path

from pydantic import Field

from segapp.base.compose import read_config
from segapp.base.config import Config, UserPath, save_config
from segapp.base.files import write_json
from segapp.base.images import Decoding, WhiteLevel
from segapp.cli import PARTIAL, output_folder
from segapp.data.checks.audit import audit
from segapp.data.checks.findings import UNPAIRED
from segapp.data.config import DataConfig
from segapp.data.pairs import Unpaired
from segapp.reports.audit import LISTED, write_audit
from segapp.runs.environment import environment
from segapp.runs.layout import AUDIT, AUDIT_PAGE, CONFIG


class CheckConfig(Config):
    """See conf/check_data.yaml."""

    data: DataConfig
    white_level: WhiteLevel
    samples: int = Field(ge=0, le=500)
    output: UserPath | None


def check(overrides: list[str]) -> int:
    """Audits the train and val sets, and leaves a page. Returns the exit status: 0, or 1 if there are errors."""
    config = read_config("check_data", overrides, CheckConfig)
    unpaired: list[Unpaired] = []
    sets = config.data.dataset("train", unpaired.extend), config.data.dataset("val", unpaired.extend)
    for each in sets:
        each.decoding = Decoding(white_level=config.white_level)
    with output_folder(config.output, "check", config.data.name) as output:
        result = audit(*sets, unpaired)
        save_config(output / CONFIG, config)
        write_json(output / AUDIT, result.as_data())
        write_audit(
            output,
            result,
            samples=config.samples,
            provenance={"data": str(Path(config.data.root).resolve())} | environment(),
        )
    for finding in result.findings:
        print(f"{finding.severity:8} {finding.title}")
        print(f"{'':8} {finding.advice}")
        shown = LISTED if finding.kind in UNPAIRED else 3
        for file in finding.files[:shown]:
            print(f"{'':10} {file}")
        if len(finding.files) > shown:
            print(f"{'':10} and {len(finding.files) - shown} more, all in {AUDIT}")
    print(f"page     {output / AUDIT_PAGE}")
    print(result.verdict)
    return 0 if result.fit else PARTIAL
