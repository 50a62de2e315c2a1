"""The search: what Optuna is asked and told, what is broken off, and how a search goes on."""

import re
from pathlib import Path

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from segapp.sweeps.search import JOURNAL, distribution
from tests.sweeps.runs import STEPS, Killed, made_up
from tests.sweeps.test_sweep import sweep, table

Capture = pytest.CaptureFixture[str]

SEARCH = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.startup_trials=2", "iterations=10"]
LR = "optimizer.lr=tag(log,interval(0.0005,5.0))"


def study(folder: Path) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
    return optuna.load_study(study_name="segapp", storage=optuna.storages.JournalStorage(backend))


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("interval(0.1,0.5)", FloatDistribution(0.1, 0.5)),
        ("tag(log,interval(0.1,0.5))", FloatDistribution(0.1, 0.5, log=True)),
        ("int(interval(1,5))", IntDistribution(1, 5)),
        ("tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True)),
        ("choice(a,b)", CategoricalDistribution(["a", "b"])),
        ("8,16", CategoricalDistribution(["8", "16"])),
        ("range(0,6,2)", CategoricalDistribution(["0", "2", "4"])),
    ],
)
def test_hydras_syntax_in_optunas_terms(typed: str, expected: BaseDistribution) -> None:
    assert distribution(OverridesParser.create().parse_override(f"key={typed}")) == expected


def test_a_search_is_killed_and_goes_on_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    folder = tmp_path / "sweep"
    deaths = ["1", "3"]

    def die(name: str) -> None:
        if deaths and name == deaths[0]:
            deaths.pop(0)
            raise Killed
        if name == "2":
            raise OSError(2, "no such file", "data")

    begun = made_up(monkeypatch, die)
    words = [*SEARCH, LR, "hydra.sweeper.n_trials=5", f"output={folder}", "resume=auto"]
    for _ in range(2):
        with pytest.raises(Killed):
            sweep(*words)
    assert sweep(*words) == 1, "one of them has failed"
    assert begun == ["0", "1", "1", "2", "3", "3", "4"]
    rows = [line.split() for line in table(capsys.readouterr().out)[1:]]
    assert sorted(row[1] for row in rows) == ["0", "1", "2", "3", "4"]
    assert rows[-1][:3] == ["n/a", "2", "failed"]
    assert len({row[-1] for row in rows}) == 5, "after a stop the same values are not drawn again"

    trials = study(folder).trials
    assert trials[2].state == TrialState.FAIL
    for trial in trials:
        if trial.state == TrialState.PRUNED:
            earlier = [other for other in trials[: trial.number] if len(other.intermediate_values) == len(STEPS)]
            assert len(earlier) >= 2
            assert trial.intermediate_values[STEPS[0]] < max(other.value or 0 for other in earlier)
        elif trial.state == TrialState.COMPLETE:
            assert f"{trial.value:.4f}" in next(row for row in rows if row[1] == str(trial.number))
    assert sweep(*words, "batch_size=3") == 2
    assert re.search("of other runs .*batch_size=3", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer.lr=tag(log,interval(-1.0,1.0))"], "run 0 (iterations=10 optimizer.lr=-1.0): optimizer.lr=-1.0: "),
        (["optimizer.lrr=interval(0,1)"], "run 0 (iterations=10 optimizer.lrr=0.0): optimizer.lrr is no key"),
        ([LR, "model/encoder=xception65,resnet"], "model/encoder=resnet): model/encoder/resnet: no such choice"),
        (["optimizer.lr=0.1"], "nothing is searched; give a key several values"),
        ([LR, "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0: "),
        ([LR, "hydra.sweeper.trials=3"], "hydra.sweeper.trials is no key of this config"),
        ([LR, "hydra.sweeper.storage=nosql://x"], "hydra.sweeper.storage=nosql://x: "),
    ],
)
def test_nothing_is_begun_where_a_value_does_not_fit(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    begun = made_up(monkeypatch)
    assert sweep(*SEARCH, *words, f"output={tmp_path / 'sweep'}") == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("error: ")]
    assert message in line
    assert not begun
