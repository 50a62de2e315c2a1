"""Every config composes; every mistake is named in one line."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from segapp.base.compose import read_config
from segapp.base.config import Config, parse_yaml
from segapp.base.errors import UserError
from segapp.base.paths import CONF
from segapp.benchmarks.infer import InferBenchmarkConfig
from segapp.benchmarks.loading import LoadingBenchmarkConfig
from segapp.benchmarks.measures import MeasuresBenchmarkConfig
from segapp.benchmarks.train import TrainBenchmarkConfig
from segapp.cli import TOOLS as COMMANDS
from segapp.cli import guarded, output_folder, run_tool
from segapp.commands.check_data import CheckConfig
from segapp.commands.compare import CompareConfig
from segapp.commands.get_data import GetConfig, ImageNetConfig
from segapp.commands.hints import evaluation_command
from segapp.commands.import_weights import ImportConfig
from segapp.commands.predict import PredictConfig
from segapp.commands.resumable import read_resumable
from segapp.data.formats.voc import Voc2012Config
from segapp.evaluation.config import EvalToolConfig
from segapp.evaluation.voc_server import ServerConfig
from segapp.models.deeplabv3plus import DeepLabV3PlusConfig
from segapp.serving.config import ServeConfig
from segapp.training.config import SegmentConfig, TrainConfig
from segapp.training.optimizers import SGDConfig
from segapp.weights.zoo import ZOO

TOOLS: dict[str, type[Config]] = {
    "serve": ServeConfig,
    "train": TrainConfig,
    "eval": EvalToolConfig,
    "predict": PredictConfig,
    "benchmark_infer": InferBenchmarkConfig,
    "benchmark_train": TrainBenchmarkConfig,
    "benchmark_data": LoadingBenchmarkConfig,
    "benchmark_measures": MeasuresBenchmarkConfig,
    "import_weights": ImportConfig,
    "prepare_data": GetConfig,
    "prepare_imagenet": ImageNetConfig,
    "check_data": CheckConfig,
    "compare": CompareConfig,
    "voc_server": ServerConfig,
}


def choices() -> list[tuple[str, str]]:
    return sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml"))


@pytest.mark.parametrize("tool", TOOLS)
def test_defaults_compose(tool: str) -> None:
    assert isinstance(read_config(tool, [], TOOLS[tool]), TOOLS[tool])


@pytest.mark.parametrize(("group", "choice"), choices())
def test_every_choice_composes(group: str, choice: str) -> None:
    tool = "predict" if group == "inference" else "train"  # which has no checkpoint to take a canvas from
    assert isinstance(read_config(tool, [f"{group}={choice}"], TOOLS[tool]), TOOLS[tool])


def test_recipes_are_the_papers() -> None:
    """arXiv:1802.02611, section 4, and research/deeplab/train.py."""
    paper = read_config("train", ["experiment=voc_paper"], SegmentConfig)
    assert (paper.iterations, paper.batch_size, paper.transform.crop, paper.model.output_stride) == (
        30000,
        16,
        513,
        16,
    )
    assert (paper.batch_norm, paper.bn_momentum, paper.checkpoint) == ("train", 3e-4, None)
    assert paper.encoder_weights == "auto"
    of_the_encoder = [name for name, entry in ZOO.items() if (entry.kind, entry.encoder) == ("encoder", "xception65")]
    assert of_the_encoder[0] == "xception65_imagenet", "what auto takes"
    assert isinstance(paper.data, Voc2012Config)
    assert (paper.data.train, paper.data.val) == ("trainaug", "val")
    second = read_config("train", ["experiment=voc_paper_os8"], SegmentConfig)
    assert (second.model.output_stride, second.batch_norm, second.optimizer.lr) == (8, "frozen", 0.001)
    assert isinstance(second.data, Voc2012Config)
    assert (second.data.train, second.validate_every) == ("trainval", None)


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_begins_with_the_command_that_runs_it(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if "@package" not in line]
    assert lines[0].startswith("# python tools/")


def test_the_papers_network_is_the_default() -> None:
    config = read_config("train", [], TrainConfig)
    assert config.model == read_config("train", ["model=deeplabv3plus_xception"], TrainConfig).model
    assert config.model.encoder.name == "xception65"
    assert isinstance(config.model, DeepLabV3PlusConfig)
    assert isinstance(config.optimizer, SGDConfig)
    assert (config.iterations, config.batch_size, config.transform.crop) == (30000, 16, 513)
    assert (config.optimizer.lr, config.optimizer.momentum, config.optimizer.weight_decay) == (0.007, 0.9, 4e-5)
    for number in (41, 71):
        other = read_config("train", [f"model=deeplabv3plus_xception{number}"], TrainConfig)
        assert other.model.encoder.name == f"xception{number}"


def test_options_reach_the_network() -> None:
    overrides = ["model=deeplabv3plus_xception41", "model.decoder=null", "model.encoder.width=0.125"]
    config = read_config("train", overrides, TrainConfig)
    assert config.model.build(3).decoder is None


@pytest.mark.parametrize(
    ("tool", "overrides", "message"),
    [
        ("train", ["iteration=5"], r"iteration is no key.*did you mean iterations\?"),
        ("train", ["+iteration=5"], r"iteration is no key.*did you mean iterations\?"),
        ("train", ["++model.encoder.wdth=1"], r"model\.encoder\.wdth is no key.*did you mean model\.encoder\.width\?"),
        ("train", ["optimizer.learning_rate=1"], r"optimizer\.learning_rate is no key"),
        ("train", ["+data.rot=x"], r"data\.rot is no key.*did you mean data\.root\?"),
        ("train", ["model=resnet"], "model/resnet: no such choice; there are: .*deeplabv3plus_xception, "),
        ("train", ["experiment=nothing"], "experiment/nothing: no such choice; there are: demo"),
        ("train", ["batch_size=many"], "batch_size=many: .*integer"),
        ("train", ["batch_size=0"], "batch_size=0: .*greater than 0"),
        ("train", ["model.output_stride=12"], r"model\.output_stride=12: .*8, 16 or 32"),
        ("train", ["device=tpu"], "device=tpu: .*'auto', 'cuda'"),
        ("train", ["~iterations"], "iterations has no value"),
        ("train", ["iterations"], "cannot read 'iterations': write key=value"),
        ("train", ["transform.train=[1"], "cannot read"),
        ("train", ["data.name=other"], r"data=.*name.*'other'.*does not match"),
        ("train", ["data.root=${nothing}"], "Interpolation key 'nothing' not found"),
        ("train", ["model=null"], "model=null: "),
        ("train", ["inference=trained"], "only a checkpoint has a canvas of training"),
        ("train", ["inference=sliding"], r"canvas of training;.* or give inference\.window a number"),
        ("train", ["workers=-1"], "workers=-1: .*greater than or equal to 0"),
        ("train", ["optimizer.lr=inf"], "optimizer.lr=inf: .*finite"),
        ("train", ["seed=99999999999999999999999"], "seed=9+: "),
        ("train", ["output="], "output= has no value; write output=null"),
        ("train", ["+nothing.like.it=1"], r"nothing is no key of this config; --help"),
        ("benchmark_infer", ["size=[1]"], r"size\.1 has no value"),
        ("benchmark_infer", ["optimizer=sgd"], "optimizer is no key of this config"),
        ("benchmark_train", ["masks=1"], "masks is no key of this config"),
        ("benchmark_data", ["sample=1"], r"sample is no key of this config; did you mean samples\?"),
        ("benchmark_measures", ["precision=float32"], "precision is no key of this config"),
        ("eval", ["model=deeplabv3plus_xception"], "model is no key of this config"),
        ("eval", ["eval.clases=[cat]"], r"eval\.clases is no key.*did you mean eval\.classes\?"),
        ("predict", ["save=[masks]"], r"masks is none of mask, overlay"),
        ("predict", ["save=[]"], r"save=\[\]: .*at least 1 item"),
    ],
)
def test_mistakes(tool: str, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_config(tool, overrides, TOOLS[tool])


@pytest.mark.parametrize("tool", COMMANDS)
def test_help_shows_examples_choices_and_values(tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tool(tool, ["--help"]) == 0
    shown = capsys.readouterr().out
    assert f"python tools/{tool}.py" in shown
    mobile = "deeplabv3_mobilenet|deeplabv3plus_mobilenet"
    models = f"model={mobile}|deeplabv3plus_xception|deeplabv3plus_xception41|deeplabv3plus_xception71"
    assert (models in shown) == (tool in ("train", "benchmark")), "the choices of this tool alone"
    assert ("inference=canvas|full|multi_scale|resize|sliding|trained" in shown) == (
        tool in ("train", "eval", "predict", "voc_server", "benchmark", "serve")
    )


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (UserError("first\nsecond"), "error: first second\n", 2),
        (
            OSError(28, "No space left on device", "/full/file"),
            "error: the disk is full (/full/file); make room, or name another folder with output=DIR\n",
            2,
        ),
        (KeyboardInterrupt(), "interrupted\n", 130),
    ],
)
def test_errors_are_one_line(error: BaseException, line: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(arguments: list[str]) -> int:
        raise error

    assert guarded(fail, []) == status
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    "path", ["~/zz", "/tmp/josé", "a&b", "x#1", "o(9)", "a=b", "{x}", "it's", "5", "a, b", "$HOME"]
)
def test_paths_are_taken_as_typed(path: str) -> None:
    config = read_config("predict", [f"output={path}", f"checkpoint={path}"], PredictConfig)
    assert config.output == Path(path).expanduser()
    assert config.checkpoint == path


def test_one_word_needs_no_brackets() -> None:
    assert read_config("predict", ["save=json"], PredictConfig).save == ("json",)
    assert read_config("eval", ["eval.classes=cat"], EvalToolConfig).eval.classes == ("cat",)


def test_two_runs_of_one_second_have_two_folders() -> None:
    with output_folder(None, "train", "x") as first, output_folder(None, "train", "x") as second:
        assert first != second
        (first / "a").touch()
        (second / "b").touch()


def test_no_file_of_the_user_is_touched(tmp_path: Path) -> None:
    (tmp_path / "probe").write_text("mine")
    with output_folder(tmp_path, "train", "x"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["probe"]


def test_a_bug_is_not_hidden() -> None:
    def fail(arguments: list[str]) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        guarded(fail, [])


def test_unwritable_output(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="cannot write to .*file/run.*output=DIR"),
        output_folder(tmp_path / "file" / "run", "train", "x"),
    ):
        pass


def test_a_failed_tool_leaves_no_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError), output_folder(tmp_path / "run", "train", "x"):
        raise UserError("no data")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["experiment=smoke"], "data=shapes data.train=8 data.val=3"),
        (["experiment=smoke", "data.seed=1"], "data=shapes data.train=8 data.val=3 data.seed=1"),
        (["data=coco_voc", "data.root=/c"], "data=coco_voc data.root=/c"),
        (["data=cityscapes", "data.root=/x y"], "data=cityscapes 'data.root=/x y'"),
        (["data=voc2012", "data.val=train", "data.cache=memory"], "data=voc2012 data.val=train"),
        (
            ["data=voc2012", "inference=canvas", "inference.canvas=321", "precision=bfloat16"],
            "data=voc2012 precision=bfloat16",
        ),
        (
            ["data=voc2012", "inference=full", "inference.flip=true"],
            "data=voc2012 inference=trained inference.flip=true",
        ),
        (
            ["data=voc2012", "inference=sliding", "inference.window=257", "inference.scales=[0.5,1]"],
            "data=voc2012 inference=sliding 'inference.scales=[0.5,1.0]'",
        ),
    ],
)
def test_a_run_names_the_command_that_evaluates_it_on_its_data(overrides: list[str], expected: str) -> None:
    config = read_config("train", overrides, SegmentConfig)
    command = evaluation_command(config, Path("/run"))
    assert command == f"uv run python tools/eval.py checkpoint=/run {expected}"
    evaluated = read_config("eval", shlex.split(command)[5:], EvalToolConfig)
    assert evaluated.data.model_dump() | {"cache": 0} == config.data.model_dump() | {"cache": 0}
    assert evaluated.inference.resolved(config.inference.side) == config.inference  # type: ignore[arg-type]
    assert evaluated.precision == config.precision


@pytest.mark.parametrize("text", ["!!int ''", "!!float ''", "!!bool x", "!!timestamp x", "[" * 3000, "a: [", "\0"])
def test_damaged_yaml_is_a_value_error_and_one_line(text: str, tmp_path: Path) -> None:
    """PyYAML itself raises IndexError, KeyError, AttributeError and RecursionError for some of these."""
    with pytest.raises(ValueError, match="not YAML"):
        parse_yaml(text)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml: damaged"):
        read_resumable("train", [f"resume={tmp_path}"], TrainConfig, frozenset())
