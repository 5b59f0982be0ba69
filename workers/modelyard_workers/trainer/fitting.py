"""From rows to a trained network: what the loop needs is put together here."""

from __future__ import annotations

import torch
from torch import nn

from modelyard.training import CheckedSpec, NetworkPlan
from modelyard.v1.training_spec_pb2 import TrainingSpec

from .early_stopping import BestEpoch
from .failures import JobFailure, TrainingRaised, is_out_of_memory
from .hardware import choose_threads
from .loop import Rows, ShuffledBatches, TrainingState, train
from .losses import LOSSES
from .networks import ServedNetwork, build_network
from .optimizers import build_optimizer
from .progress import ProgressMeter
from .resuming import CheckpointPlan, begin_or_resume
from .saving import CheckpointSaver
from .scaling import Restore, Standardize, input_scaling, statistics
from .splits import Parts
from .stopping import Stopped, StopRequest
from .tables import Table
from .update_stream import UpdateStream, say


def fit(
    checked: CheckedSpec,
    table: Table,
    parts: Parts,
    device: torch.device,
    updates: UpdateStream,
    stop: StopRequest,
    checkpoints: CheckpointPlan,
) -> ServedNetwork:
    """Trains the spec's network, from its checkpoint if there is one, and answers it as it will be served, on the CPU.

    Raises Diverged, Stopped (a checkpoint is saved then), out of memory as it comes, and TrainingRaised for anything
    that was not foreseen.
    """
    try:
        return _fit(checked, table, parts, device, updates, stop, checkpoints)
    except (JobFailure, Stopped, BrokenPipeError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise TrainingRaised(f"{type(error).__name__}: {error}") from error


def _fit(
    checked: CheckedSpec,
    table: Table,
    parts: Parts,
    device: torch.device,
    updates: UpdateStream,
    stop: StopRequest,
    checkpoints: CheckpointPlan,
) -> ServedNetwork:
    spec, plan = checked.spec, checked.plan
    # Statistics come from the training rows only: the network must not know the rows that it is judged by.
    scaling = input_scaling(spec.input_scaling, table.features[parts.training])
    standardize, restore = _target_scaling(spec, table, parts)
    training, validation = (
        Rows(
            scaling(torch.from_numpy(table.features[rows])).to(device),
            standardize(torch.from_numpy(table.targets[rows])).to(device),
        )
        for rows in (parts.training, parts.validation)
    )
    state = begin_or_resume(lambda: _initial_state(spec, plan, len(training), device), checkpoints, device)
    say(f"network: {_describe(plan)}; on {device}, threads: {torch.get_num_threads()}")
    say(f"at most {spec.max_epochs:,} epochs of {state.batches.per_epoch:,} steps")
    meter = ProgressMeter(
        updates.progress,
        max_epochs=spec.max_epochs,
        rows_per_epoch=len(training),
        rows_before=state.epoch * len(training) + state.batches.rows_given_out(),
    )
    saver = CheckpointSaver(
        checkpoints.folder,
        checkpoints.origin,
        updates.checkpoint,
        interval_s=checkpoints.interval_s,
        saved_step=state.step,
    )
    try:
        train(state, training, validation, LOSSES[spec.loss], spec.max_epochs, meter, saver, stop)
    except Stopped:
        saver.save(state)
        raise
    finally:
        saver.wait()
    say(_ending(state, spec))
    return ServedNetwork(scaling, state.network.to("cpu"), restore)


def _initial_state(spec: TrainingSpec, plan: NetworkPlan, rows: int, device: torch.device) -> TrainingState:
    torch.manual_seed(spec.seed)
    network = build_network(plan).to(device)
    full_batch = spec.optimizer.HasField("gradient_descent")
    batches = ShuffledBatches(rows, rows if full_batch else spec.batch_size, spec.seed, device)
    choose_threads(plan, rows // batches.per_epoch)
    return TrainingState(
        network=network,
        optimizer=build_optimizer(spec.optimizer, network.parameters()),
        batches=batches,
        best=BestEpoch(spec.early_stopping if spec.HasField("early_stopping") else None),
        loss_sum=torch.zeros((), dtype=torch.float64, device=device),
    )


def _target_scaling(spec: TrainingSpec, table: Table, parts: Parts) -> tuple[nn.Module, nn.Module]:
    """To the unit that is trained in, and back to the target's own."""
    if not spec.standardize_target:
        return nn.Identity(), nn.Identity()
    found = statistics(table.targets[parts.training])
    return Standardize(found), Restore(found)


def _describe(plan: NetworkPlan) -> str:
    """As in `10 → 20 → 40 → 1, 1,101 parameters`: the shapes where they change."""
    shapes = [plan.input_shape]
    for layer in plan.layers:
        if layer.output_shape != shapes[-1]:
            shapes.append(layer.output_shape)
    path = " → ".join("×".join(map(str, shape)) for shape in shapes)
    return f"{path}, {plan.parameter_count:,} parameters"


def _ending(state: TrainingState, spec: TrainingSpec) -> str:
    best = f"best validation loss {state.best.loss:.4g} in epoch {state.best.epoch:,}"
    if not spec.HasField("early_stopping"):
        return f"trained {state.epoch:,} epochs; {best}"
    if state.best.should_stop(state.epoch):
        why = f"stopped early after epoch {state.epoch:,}: none of the last {spec.early_stopping.patience:,} was better"
    else:
        why = f"trained all {state.epoch:,} epochs"
    return f"{why}; {best}, whose weights are kept"
