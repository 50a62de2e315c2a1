"""What a sweep ends with: its runs by their score, the page that compares them, and how to go on with the best."""

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segapp.base.paths import as_invoked
from segapp.reports.compare import write_comparison
from segapp.runs.environment import environment
from segapp.runs.history import Run
from segapp.runs.layout import COMPARISON
from segapp.sweeps.jobs import Job

DONE = "done"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """`state`: what became of the run."""

    job: Job
    run: Run
    state: str

    @property
    def score(self) -> float | None:
        return self.run.best.score if self.run.best else None


def ranked(jobs: Sequence[Job], states: Mapping[int, str]) -> list[Row]:
    """The best first, those without a score last."""
    rows = [
        Row(job, run := job.run, states.get(job.number) or (DONE if job.is_done else _unfinished(run))) for job in jobs
    ]
    return sorted(rows, key=lambda row: (row.score is None, -(row.score or 0), row.job.number))


def _unfinished(run: Run) -> str:
    return f"unfinished, {run.iteration} of {run.iterations}" if run.iteration else "failed"


def summarise(folder: Path, rows: Sequence[Row], flags: Sequence[str]) -> None:
    """Prints the table and what to do next, and writes the page over all that have begun.

    Args:
        flags: say where configs are, as typed.
    """
    begun = [row.run for row in rows if row.run.series]
    title = next((run.metric_title for run in begun), "score")
    table = [(title, "run", "state", ""), *(_cells(row) for row in rows)]
    widths = [max(len(row[at]) for row in table) for at in range(3)]
    print()
    for cells in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, [*widths, 0], strict=True)).rstrip())
    print()
    if len(begun) > 1:
        unlike = write_comparison(folder / COMPARISON, begun, {"sweep": str(folder)} | environment())
        if unlike:
            log.warning("these runs are not scored alike: they differ in %s", ", ".join(unlike))
        print(f"page  {folder / COMPARISON}")
    if rows[0].score is None:
        return
    best, iterations = rows[0].job, rows[0].run.iterations or 0
    print(f"best  {best.folder}, {title} {rows[0].score:.4f}" + (f", {best.chosen}" if best.chosen else ""))
    words = [
        *flags,
        *(word for word in best.words if not word.startswith("iterations=")),
        f"iterations={2 * iterations}",
    ]
    print(as_invoked(f"train it twice as long   uv run {shlex.join(['python', 'tools/train.py', *words])}"))


def _cells(row: Row) -> tuple[str, str, str, str]:
    score = "n/a" if row.score is None else f"{row.score:.4f}"
    return score, row.job.folder.name, row.state, row.job.chosen
