"""The table of runtimes, and what stands above it."""

import re
from pathlib import Path

import pytest

from segapp.benchmarks.runtimes import processor
from segapp.cli import run_tool
from tests.benchmarks.tables import Capture, number, tables

TINY = ["size=[33,49]", "rounds=2", "model=deeplabv3plus_xception41", "model.encoder.width=0.125", "memory=false"]


def test_a_table_for_each_case_is_printed_and_written(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "runtimes.md"
    cases = ["output_strides=[16,8]", "threads=[1]", "batch_sizes=[1,2]"]
    assert run_tool("benchmark", ["runtimes", *TINY, *cases, "contenders=[torch,smp]", f"output={file}"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("smp is left out: ") == 2, "it has no encoder of this width"
    written = file.read_text()
    assert tables(written) == tables(shown)
    assert processor() in written
    sizes = re.findall(r"output stride (\d+), (\d) x 33 x 49, cpu, 1 threads", written)
    assert sizes == [("16", "1"), ("16", "2"), ("8", "1"), ("8", "2")]
    for (_, batch), rows in zip(sizes, tables(written), strict=True):
        (row,) = rows
        assert row["runtime"] == "torch"
        assert number(row["min"]) <= number(row["median ms"]) <= number(row["max"])
        assert number(row["images/s"]) == pytest.approx(1000 * int(batch) / number(row["median ms"]), rel=0.02)
        assert number(row["speed of torch"]) == 1


def test_a_contender_that_is_none_is_refused(capsys: Capture) -> None:
    assert run_tool("benchmark", ["runtimes", *TINY, "contenders=[tensorflow]"]) == 2
    assert "tensorflow is none of smp, " in capsys.readouterr().err
