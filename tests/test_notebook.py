"""docs/notebook.ipynb, run from its first cell to its last in a folder of its own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segapp.base.paths import CONF

NOTEBOOK = CONF.parent / "docs" / "notebook.ipynb"


def code_cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_it_is_kept_without_what_it_has_shown() -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code_cells())


@pytest.mark.slow
def test_it_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "notebook"}
    try:
        for cell in code_cells():
            exec(compile("".join(cell["source"]), f"{NOTEBOOK.name} {cell['id']}", "exec"), names)
    finally:
        if "service" in names:
            names["service"].kill()
    assert names["service"].returncode in (0, 143)
    exported, tuned, photo = names["exported"], names["tuned"], names["photo"]
    assert exported.protocol.endswith("float32 by ONNX Runtime")
    assert np.mean(exported(photo) == tuned(photo)) > 0.99
    assert np.array_equal(names["mask"], exported(photo))
    scores = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert scores["images"] == 8
    assert scores["per_class_iou"]["drawn"] > 0.4, "it has learned what is drawn"
    assert 1 in names["mask"]
