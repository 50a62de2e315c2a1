"""The trainer: a loop on one screen, and what it does at each of its turns."""

import logging
import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from torch.optim.swa_utils import update_bn

from segapp.base.config import save_config
from segapp.base.devices import autocast, compute_dtype
from segapp.base.distributed import ALONE, Processes
from segapp.base.errors import Stopped, UserError
from segapp.base.files import write_json
from segapp.base.images import write_image
from segapp.base.logs import log_to_file, progress_bar
from segapp.data.loading.crops import training_batches
from segapp.evaluation.classification import Classification
from segapp.evaluation.evaluate import Evaluation
from segapp.inference.preprocess import normalize
from segapp.models.flops import forward_flops, matmul_rate
from segapp.reports.run import write_run_page
from segapp.runs.environment import environment
from segapp.runs.layout import BEST, CONFIG, ENVIRONMENT, LOG, PICTURES
from segapp.runs.metric_logger import MetricLogger
from segapp.training.checkpoints import CheckpointWriter, to_continue
from segapp.training.config import LESS_MEMORY, TrainConfig
from segapp.training.setup import Setup, prepare
from segapp.training.step import MicroBatch, random_seed
from segapp.training.stopping import StopRequest, stop_request
from segapp.training.throughput import Throughput
from segapp.weights.checkpoint import restore_weights, tensors_to_save

log = logging.getLogger(__name__)


Watch = Callable[[int, float], bool]
"""Told of a validation's iteration and score, it says whether the rest of the run is worth while."""


def train(
    config: TrainConfig, output: Path, processes: Processes = ALONE, watch: Watch | None = None
) -> Evaluation | Classification | None:
    """Trains into `output` and scores its best checkpoint on the validation set; None without validation, or
    where that scored nothing. A run that `watch` breaks off, in the main process, is scored, too.

    The main process leaves best.safetensors, checkpoints/ to resume from, metrics.jsonl, run.html, pictures/ and
    TensorBoard's files.

    Raises:
        UserError: the data, a checkpoint or the device cannot be used, the loss is not finite, or the disk is full.
        Stopped: one of STOP_SIGNALS came, and a checkpoint is saved.
    """
    setup = prepare(config, output, processes)
    trainer = Trainer(config, output, processes, setup, watch)
    trainer.run()
    processes.barrier()
    if not setup.task.validates or trainer.progress.best_score is None:
        return None
    restore_weights(output / BEST, setup.train_step.model)
    return setup.task.final()


class Trainer:
    """Runs the iterations that are left, and writes what a run's folder holds."""

    def __init__(
        self, config: TrainConfig, output: Path, processes: Processes, setup: Setup, watch: Watch | None = None
    ) -> None:
        self.config = config
        self.watch = watch
        self.output = output
        self.processes = processes
        self.setup = setup
        self.task, self.train_step, self.device = setup.task, setup.train_step, setup.device
        crop = config.transform.crop
        self._flops = 3 * forward_flops(self.train_step.model, (1, 3, crop, crop))  # an image's, forward and backward
        self._limit = processes.world_size * matmul_rate(self.device, compute_dtype(self.device, config.precision))
        if processes.main:
            save_config(output / CONFIG, config)
            log_to_file(output / LOG)
            write_json(output / ENVIRONMENT, facts(config, setup, processes))
        for line in setup.remarks:
            log.info(line)
        where = f"{processes.world_size} x {self.device}" if processes.world_size > 1 else self.device
        log.info("training on %s into %s", where, output)
        for line in setup.beginning:
            log.info(line)

        self.progress = setup.progress
        self._saved = self.progress if self.progress.iteration else None
        self._score = math.nan
        self._updating = False
        self.logger: MetricLogger | None = None
        if processes.main:
            start, validated = self.progress.iteration, self.progress.validated
            self.logger = MetricLogger(output, self.task.metric.key, start, validated=validated)
        self.writer = CheckpointWriter(output, config.keep)
        self.bar = progress_bar(config.iterations, "training", "it", done=self.progress.iteration)
        self.throughput = Throughput()

    def run(self) -> None:
        """Until all iterations are done, and all is written.

        Raises:
            Stopped, UserError: as `train`.
        """
        with stop_request() as stop, explained(self.output):
            try:
                batches = self._batches()
                self.train_step.model.train()
                while True:
                    if self._is_last and self.config.recompute_bn and not self.progress.validated:
                        self._recompute_bn()
                    if self._saves:
                        self._check_weights()
                    if self._validates and not self.progress.validated:
                        self._validate(stop)
                    if self._saves:
                        self._save()
                    if self._is_last or (self._validates and self._is_broken_off()):
                        break
                    self._update(batches)
                    if self._is_due(self.config.log_every):
                        self._log()
                    self.writer.check()
                    if self.processes.any(stop.signal is not None):
                        raise Stopped(stop.signal or signal.SIGTERM)
            except (Stopped, RuntimeError) as error:
                self._stop(error, stop)
            finally:
                self._close()
            self.writer.wait()

    @property
    def _is_last(self) -> bool:
        return self.progress.iteration == self.config.iterations

    def _is_due(self, every: int | None) -> bool:
        iteration = self.progress.iteration
        return every is not None and iteration > 0 and (self._is_last or iteration % every == 0)

    @property
    def _validates(self) -> bool:
        return self.task.validates and self._is_due(self.config.validate_every)

    @property
    def _saves(self) -> bool:
        return self._validates or self._is_due(self.config.save_every)

    def _is_broken_off(self) -> bool:
        if self.watch is None or math.isnan(self._score):
            return False
        return self.processes.any(self.processes.main and not self.watch(self.progress.iteration, self._score))

    def _batches(self) -> Iterator[MicroBatch]:
        return training_batches(
            self.setup.stream,
            start=self.progress.iteration,
            stop=self.config.iterations,
            batch_size=self.config.batch_size,
            workers=self.config.workers,
            pin_memory=self.device.type == "cuda",
            accumulation_steps=self.config.accumulate,
            rank=self.processes.rank,
            world_size=self.processes.world_size,
        )

    def _update(self, batches: Iterator[MicroBatch]) -> None:
        with self.throughput.waiting():
            micro_batches = list(islice(batches, self.config.accumulate))
        self._updating = True  # an error now would leave half of an update
        self.train_step(self.progress.iteration + 1, micro_batches)
        self.progress = replace(self.progress, iteration=self.progress.iteration + 1, validated=False)
        self._updating = False
        self.throughput.count(self.config.batch_size)
        self.bar.update()

    def _log(self) -> None:
        metrics = self.train_step.metrics()
        if not math.isfinite(metrics["loss"]):
            self.writer.settle()
            raise self._not_finite(f"the loss is {metrics['loss']}")
        metrics |= self.throughput.metrics()
        metrics["flop_utilisation"] = metrics["images_per_second"] * self._flops / self._limit
        if self.device.type == "cuda":
            metrics["gpu_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        self.bar.set_postfix(self._postfix(metrics), refresh=False)  # the bar chooses when it is drawn
        if self.logger is not None:
            self.logger.write(self.progress.iteration, metrics)
        self.train_step.reset()
        self.throughput.reset()

    def _postfix(self, metrics: dict[str, float]) -> dict[str, str]:
        """What stands beside the progress bar."""
        values = {
            "loss": f"{metrics['loss']:.3f}",
            "lr": f"{metrics['lr']:.1e}",
            **({} if math.isnan(self._score) else {self.task.metric.title: f"{self._score:.3f}"}),
            "images/s": f"{metrics['images_per_second']:.1f}",
            "waiting": f"{metrics['data_wait']:.0%}",
            "of peak": f"{metrics['flop_utilisation']:.0%}",
        }
        if "gpu_memory_gb" in metrics:
            values["GB"] = f"{metrics['gpu_memory_gb']:.1f}"
        return values

    def _validate(self, stop: StopRequest) -> None:
        """Scores each network, keeps the best weights so far, and draws the run's page."""
        iteration, metric = self.progress.iteration, self.task.metric
        values: dict[str, float] = {}
        for prefix, network in self.task.networks.items():
            metrics = self.task.validate(prefix, stop)
            values |= {f"{prefix}{key}": value for key, value in metrics.items()}
            score = metrics[metric.key]
            self._score = score if not prefix else self._score
            whose = ", averaged weights" if prefix else ""
            if not math.isfinite(score):
                log.warning(
                    "iteration %d: nothing is scored: %s holds fewer than two classes; nothing is called best%s",
                    *(iteration, self.task.data_name, whose),
                )
                continue
            log.info("iteration %d: %s %.4f on %s%s", iteration, metric.title, score, self.task.data_name, whose)
            best = self.progress.best_score
            if best is None or not score <= best:  # also where an earlier version kept NaN
                self.progress = replace(self.progress, best_score=score)
                if self.processes.main:
                    self.writer.best(tensors_to_save(network), self.task.describe(iteration, score))
        self.progress = replace(self.progress, validated=True)
        if self.logger is not None:
            self.logger.write(iteration, values)
            pictures = self.task.pictures()
            if pictures is not None:
                (self.output / PICTURES).mkdir(exist_ok=True)
                write_image(self.output / PICTURES / f"{iteration:07d}.png", pictures)
                self.logger.show(iteration, pictures)
            write_run_page(self.output)
        self.throughput.reset()

    def _check_weights(self) -> None:
        """Raises:
        UserError: a weight is not finite: nothing that is to be kept.
        """
        self.train_step.share_statistics()
        if not self.train_step.weights_are_finite():
            self.writer.settle()
            raise self._not_finite("a weight is not a finite number")

    def _save(self) -> None:
        """A checkpoint of the weights as they are, unless there is one."""
        if self.progress == self._saved:
            return
        self._saved = self.progress
        if self.processes.main:
            step = self.train_step
            averaged = tensors_to_save(step.averaged.module) if step.averaged is not None else None
            score = self._score if self.progress.validated else None
            info = self.task.describe(self.progress.iteration, score)
            self.writer.checkpoint(self.progress, tensors_to_save(step.model), averaged, info, step.state_dict())

    def _recompute_bn(self) -> None:
        """Counts BN's statistics anew, of the network and of its average, from crops that training has not come to."""
        config, rank = self.config, self.processes.rank
        log.info("recomputing BN's statistics from %d batches", config.recompute_bn)
        torch.manual_seed(random_seed(config.seed, config.iterations + 1, rank))
        for network in self.task.networks.values():
            batches = training_batches(
                self.setup.stream,
                start=config.iterations,
                stop=config.iterations + config.recompute_bn,
                batch_size=config.batch_size,
                workers=config.workers,
                pin_memory=False,
                rank=rank,
                world_size=self.processes.world_size,
            )
            inputs = (normalize(images.to(self.device), self.setup.normalization) for images, _ in batches)
            with autocast(self.device, config.precision):
                update_bn(inputs, network)
        self._saved = None

    def _stop(self, error: Exception | Stopped, stop: StopRequest) -> None:
        """Saves, where a signal is what ended the run. Of processes that stop, one may learn of it by the others'
        absence.

        Raises:
            Stopped: all is saved. Or the error itself.
        """
        if isinstance(error, RuntimeError) and (stop.signal is None or self._updating):
            raise error
        if self.train_step.weights_are_finite():
            self._save()
        self.writer.wait()
        log.warning("stopped; %s", to_continue(self.output))
        raise Stopped(stop.signal or signal.SIGTERM) from None

    def _close(self) -> None:
        self.bar.close()
        if self.logger is not None:
            self.logger.close()
        self.writer.settle()

    def _not_finite(self, what: str) -> UserError:
        return UserError(
            f"{what} at iteration {self.progress.iteration}; lower optimizer.lr, raise schedule.warmup_iterations, or "
            f"set optimizer.clip_norm; {to_continue(self.output)}"
        )


def facts(config: TrainConfig, setup: Setup, processes: Processes) -> dict[str, str | int]:
    """Where and with what the run is made, and by which metric it is judged."""
    return {
        **environment(),
        "device": str(setup.device),
        "precision": str(compute_dtype(setup.device, config.precision)).removeprefix("torch."),
        "processes": processes.world_size,
        "parameters": sum(each.numel() for each in setup.train_step.model.parameters()),
        "metric": setup.task.metric.key,
        "metric_title": setup.task.metric.title,
    }


@contextmanager
def explained(output: Path) -> Iterator[None]:
    """Raises:
    UserError: in place of PyTorch's error where memory is short or a loading process has been killed, and of the
        system's where the log, a picture or a page cannot be written.
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
