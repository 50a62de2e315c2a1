"""Training, from top to bottom."""

import logging
import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from torch.optim.swa_utils import update_bn

from segapp.base.classes import voc_palette
from segapp.base.config import save_config
from segapp.base.devices import autocast, compute_dtype, to_network_input
from segapp.base.distributed import ALONE, Processes
from segapp.base.errors import LESS_MEMORY, Stopped, UserError
from segapp.base.files import write_json
from segapp.base.images import write_image
from segapp.base.logs import log_to_file, progress_bar
from segapp.data.dataset import Sample, SegmentationDataset
from segapp.data.loading.crops import training_batches
from segapp.evaluation.colour_table import ColourTable
from segapp.evaluation.evaluate import Evaluation, evaluate
from segapp.evaluation.examples import make_examples
from segapp.evaluation.labellers import by_network
from segapp.inference.predictor import Prediction, Predictor
from segapp.models.flops import forward_flops, matmul_rate
from segapp.reports.grid import picture_grid
from segapp.reports.results import environment
from segapp.reports.run import write_run_page
from segapp.runs.layout import BEST
from segapp.runs.metric_logger import MetricLogger, Throughput
from segapp.training.checkpoints import CheckpointWriter, Progress, to_continue
from segapp.training.config import TrainConfig
from segapp.training.setup import Setup, prepare
from segapp.training.step import random_seed
from segapp.training.stopping import StopRequest, stop_request
from segapp.weights.checkpoint import read_weights

log = logging.getLogger(__name__)


def train(config: TrainConfig, output: Path, processes: Processes = ALONE) -> Evaluation | None:
    """Trains into `output` and scores its best checkpoint on the validation set; None without validation.

    The main process leaves best.safetensors, checkpoints/ to resume from, metrics.jsonl, run.html, pictures/ and
    TensorBoard's files.

    Raises:
        UserError: the data, a checkpoint or the device cannot be used, the loss is not finite, or the disk is full.
        Stopped: SIGINT or SIGTERM came, and a checkpoint is saved.
    """
    setup = prepare(config, output, processes)
    device, updater, progress = setup.device, setup.updater, setup.progress
    model, validation = updater.model, setup.data.validation
    crop = config.transform.crop
    flops = 3 * forward_flops(model, (1, 3, crop, crop))  # an image's, forward and backward
    limit = processes.size * matmul_rate(device, compute_dtype(device, config.precision))

    if processes.main:
        save_config(output, config)
        log_to_file(output)
        write_json(output / "environment.json", facts(config, setup, processes))
    for dataset in (setup.data.training, validation):
        if dataset is not None:
            log.info("%s: %d images, %d classes", dataset.name, len(dataset), len(dataset.classes))
    log.info("training on %s into %s", f"{processes.size} x {device}" if processes.size > 1 else device, output)
    for line in setup.said:
        log.info(line)

    journal = MetricLogger(output, progress.iteration, validated=progress.validated) if processes.main else None
    writer = CheckpointWriter(output, config.keep)
    bar = progress_bar(config.iterations, "training", "it", done=progress.iteration)
    pace, miou = Throughput(), math.nan
    saved = progress if progress.iteration else None
    updating = False

    def save() -> None:
        """A checkpoint of the weights as they are, unless there is one."""
        nonlocal saved
        if progress == saved:
            return
        saved = progress
        if processes.main:
            averaged = updater.averaged.module.state_dict() if updater.averaged is not None else None
            info = setup.describe(config, progress.iteration, miou if progress.validated else None)
            writer.checkpoint(progress, model.state_dict(), averaged, info, updater.state_dict())

    with stop_request() as stop, told(output):
        try:
            batches = training_batches(
                setup.stream,
                start=progress.iteration,
                stop=config.iterations,
                batch_size=config.batch_size,
                workers=config.workers,
                pin_memory=device.type == "cuda",
                parts=config.accumulate,
                share=processes.rank,
                shares=processes.size,
            )
            model.train()
            while True:
                last = progress.iteration == config.iterations
                validates = validation is not None and is_due(config.validate_every, progress, last)
                saves = validates or is_due(config.save_every, progress, last)
                if last and config.recompute_bn and not progress.validated:
                    recompute_bn(config, setup, processes)
                    saved = None
                if saves:
                    updater.share_statistics()
                    if not updater.weights_are_finite():
                        writer.settle()
                        raise not_finite("a weight is not a finite number", progress.iteration, output)
                if validation is not None and validates and not progress.validated:
                    scores: dict[str, float] = {}
                    for name, predictor in setup.predictors.items():
                        evaluation = validate(config, validation, predictor, processes, stop=stop)
                        scores |= validation_figures(evaluation, name)
                        found = evaluation.scores.miou
                        miou = found if name == "" else miou
                        whose = ", averaged weights" if name else ""
                        log.info("iteration %d: mIoU %.4f on %s%s", progress.iteration, found, validation.name, whose)
                        if progress.best_miou is None or found > progress.best_miou:
                            progress = replace(progress, best_miou=found)
                            if processes.main:
                                info = setup.describe(config, progress.iteration, found)
                                writer.best(predictor.model.state_dict(), info)
                    progress = replace(progress, validated=True)
                    if journal is not None:
                        journal.write(progress.iteration, scores)
                        draw(config, setup, output, journal, progress.iteration)
                        write_run_page(output)
                    pace.reset()
                if saves:
                    save()
                if last:
                    break

                with pace.waiting():
                    parts = list(islice(batches, config.accumulate))
                updating = True  # an error now would leave half of an update
                updater(progress.iteration + 1, parts)
                progress = Progress(progress.iteration + 1, best_miou=progress.best_miou)
                updating = False
                pace.count(config.batch_size)
                bar.update()
                if is_due(config.log_every, progress, progress.iteration == config.iterations):
                    figures = updater.figures()
                    if not math.isfinite(figures["loss"]):
                        writer.settle()
                        raise not_finite(f"the loss is {figures['loss']}", progress.iteration, output)
                    figures |= pace.figures()
                    figures["flop_utilisation"] = figures["images_per_second"] * flops / limit
                    if device.type == "cuda":
                        figures["gpu_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
                    bar.set_postfix(shown(figures, miou), refresh=False)  # the bar chooses when it is drawn
                    if journal is not None:
                        journal.write(progress.iteration, figures)
                    updater.reset()
                    pace.reset()
                writer.check()
                if processes.any(stop.signal is not None):
                    raise Stopped(stop.signal or signal.SIGTERM)
        except (Stopped, RuntimeError) as error:
            # Of processes that stop, one may learn of it by the others' absence.
            if isinstance(error, RuntimeError) and (stop.signal is None or updating):
                raise
            if updater.weights_are_finite():
                save()
            writer.wait()
            log.warning("stopped; %s", to_continue(output))
            raise Stopped(stop.signal or signal.SIGTERM) from None
        finally:
            bar.close()
            if journal is not None:
                journal.close()
            writer.settle()
        writer.wait()
    processes.barrier()
    if validation is None:
        return None
    model.load_state_dict(read_weights(output / BEST, model.state_dict()))
    return validate(config, validation, setup.predictors[""], processes, final=True)


def is_due(every: int | None, progress: Progress, last: bool) -> bool:
    return every is not None and progress.iteration > 0 and (last or progress.iteration % every == 0)


def validate(
    config: TrainConfig,
    validation: SegmentationDataset,
    predictor: Predictor,
    processes: Processes,
    *,
    final: bool = False,
    stop: StopRequest | None = None,
) -> Evaluation:
    """The final one has all measures and examples, those on the way the confusion matrix alone.

    Raises:
        Stopped: a signal has come meanwhile.
    """
    label = by_network(predictor, confidence=final and config.eval.detailed)

    def label_or_stop(samples: Sequence[Sample]) -> Sequence[Prediction | UserError]:
        if stop is not None:
            stop.check()
        return label(samples)

    return evaluate(
        validation,
        label_or_stop,
        protocol=predictor.protocol,
        config=config.eval if final else config.eval.plain,
        workers=config.workers,
        device=predictor.device,
        processes=processes,
    )


def validation_figures(evaluation: Evaluation, prefix: str) -> dict[str, float]:
    """For the journal; the network's own by class, too."""
    scores = evaluation.scores
    values = {f"{prefix}miou": scores.miou, f"{prefix}pixel_accuracy": scores.pixel_accuracy}
    if not prefix:
        values |= {f"iou/{name}": iou for name, iou in zip(scores.classes, scores.per_class_iou.tolist(), strict=True)}
    return values


def draw(config: TrainConfig, setup: Setup, output: Path, journal: MetricLogger, iteration: int) -> None:
    """A few images of the validation set, always the same ones, with what is made of them now."""
    validation = setup.data.validation
    assert validation is not None
    places = torch.linspace(0, len(validation) - 1, min(config.pictures, len(validation))).long().tolist()
    examples = make_examples(validation, by_network(setup.predictors[""]), places)
    if examples:
        grid = picture_grid(examples, validation.classes, voc_palette())
        (output / "pictures").mkdir(exist_ok=True)
        write_image(output / "pictures" / f"{iteration:07d}.png", grid)
        journal.show(iteration, grid)


def recompute_bn(config: TrainConfig, setup: Setup, processes: Processes) -> None:
    """Counts BN's statistics anew, of the network and of its average, from crops that training has not come to."""
    log.info("recomputing BN's statistics from %d batches", config.recompute_bn)
    torch.manual_seed(random_seed(config.seed, config.iterations + 1, processes.rank))
    for predictor in setup.predictors.values():
        batches = training_batches(
            setup.stream,
            start=config.iterations,
            stop=config.iterations + config.recompute_bn,
            batch_size=config.batch_size,
            workers=config.workers,
            pin_memory=False,
            share=processes.rank,
            shares=processes.size,
        )
        with autocast(setup.device, config.precision):
            update_bn((to_network_input(images.to(setup.device)) for images, _ in batches), predictor.model)


def shown(figures: dict[str, float], miou: float) -> dict[str, str]:
    """What stands beside the progress bar."""
    values = {
        "loss": f"{figures['loss']:.3f}",
        "lr": f"{figures['lr']:.1e}",
        **({} if math.isnan(miou) else {"mIoU": f"{miou:.3f}"}),
        "images/s": f"{figures['images_per_second']:.1f}",
        "waiting": f"{figures['data_wait']:.0%}",
        "of peak": f"{figures['flop_utilisation']:.0%}",
    }
    if "gpu_memory_gb" in figures:
        values["GB"] = f"{figures['gpu_memory_gb']:.1f}"
    return values


def facts(config: TrainConfig, setup: Setup, processes: Processes) -> dict[str, str]:
    """Where and with what the run is made."""
    return environment() | {
        "device": str(setup.device),
        "precision": str(compute_dtype(setup.device, config.precision)).removeprefix("torch."),
        "processes": str(processes.size),
        "parameters": f"{sum(each.numel() for each in setup.updater.model.parameters()):,}",
    }


def not_finite(what: str, iteration: int, output: Path) -> UserError:
    return UserError(
        f"{what} at iteration {iteration}; lower optimizer.lr, raise schedule.warmup_iterations, or set "
        f"optimizer.clip_norm; {to_continue(output)}"
    )


@contextmanager
def told(output: Path) -> Iterator[None]:
    """Raises:
    UserError: in place of PyTorch's error where memory is short or a loading process has been killed, and of the
        system's where the journal, a picture or a page cannot be written.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        problem = f"out of GPU memory; {LESS_MEMORY}"
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        problem = "a loading process was killed, most often for want of memory; lower workers, or set data.cache=none"
    except OSError as error:
        problem = f"{error.filename or output}: {error.strerror or error}; make room or mend the disk"
    else:
        return
    raise UserError(f"{problem}; {to_continue(output)}")


def colour_table_miou(config: TrainConfig) -> float:
    """The mIoU of a colour look-up table, fitted on the training set, on the validation set."""
    training_set, validation_set = config.data.dataset("train"), config.data.dataset("val")
    table = ColourTable(len(training_set.classes))
    with progress_bar(len(training_set), "fitting the colour table", "image", leave=False) as progress:
        for index in range(len(training_set)):
            sample = training_set[index]
            assert sample.label is not None
            table.fit(sample.image, sample.label)
            progress.update()

    def label(samples: Sequence[Sample]) -> list[Prediction | UserError]:
        return [Prediction(torch.from_numpy(table(sample.image))) for sample in samples]

    return evaluate(
        validation_set, label, protocol="colour look-up table", config=config.eval.plain, workers=config.workers
    ).scores.miou
