"""The jobs of a run: several tenants, a handful of recipes, each with the end that it must come to."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelyard.v1 import training_spec_pb2 as spec_pb
from modelyard.v1.training_job_pb2 import TrainingJob
from support.training_specs import regression

TENANTS = ("red", "green", "blue")
_MODELS_PER_TENANT = 4

State = TrainingJob.State
Reason = TrainingJob.FailureReason


@dataclass(frozen=True)
class Recipe:
    """A kind of job."""

    name: str
    epochs: int
    share: int
    """How many of so many jobs are of this kind, relative to the others."""
    state: State.ValueType = State.STATE_SUCCEEDED
    reason: Reason.ValueType = Reason.FAILURE_REASON_UNSPECIFIED
    learning_rate: float = 0.01
    impossible_gate: bool = False


RECIPES = (
    Recipe("tiny", 8, 6),
    Recipe("short", 150, 8),
    Recipe("longer", 1200, 6),
    Recipe("diverging", 200, 1, State.STATE_FAILED, Reason.FAILURE_REASON_DIVERGED, learning_rate=1e30),
    Recipe("rejected", 20, 1, State.STATE_FAILED, Reason.FAILURE_REASON_GATE_REJECTED, impossible_gate=True),
)
"""All jobs of one recipe train on the same rows with the same seed: what they publish must be the same bytes."""


@dataclass(frozen=True)
class PlannedJob:
    """One job, as it will be submitted."""

    number: int
    tenant: str
    recipe: Recipe
    model: str

    @property
    def request_id(self) -> str:
        """Submitting twice must make one job."""
        return f"chaos-{self.number}"

    def spec(self) -> spec_pb.TrainingSpec:
        """What is trained."""
        return spec_of(self.recipe, self.tenant, self.model)


def spec_of(recipe: Recipe, tenant: str, model: str, *, epochs: int | None = None) -> spec_pb.TrainingSpec:
    """A spec of this recipe."""
    spec = regression(dataset=f"datasets/table-{tenant}", model=f"models/{model}", max_epochs=epochs or recipe.epochs)
    spec.optimizer.learning_rate, spec.seed, spec.batch_size = recipe.learning_rate, 7, 16
    if recipe.impossible_gate:
        spec.publication.gates.add(metric="r2", minimum=2.0)
    return spec


def planned_jobs(chance: random.Random, count: int) -> Iterator[PlannedJob]:
    """The jobs in the order of submission. Several publish to the same model."""
    kinds = [recipe for recipe in RECIPES for _ in range(recipe.share)]
    bag: list[Recipe] = []
    for number in range(count):
        if not bag:
            bag = chance.sample(kinds, len(kinds))
        tenant = chance.choice(TENANTS)
        yield PlannedJob(number, tenant, bag.pop(), f"{tenant}-{chance.randrange(_MODELS_PER_TENANT)}")


def write_table(path: Path) -> Path:
    """Three features and a target that is nearly their sum, 200 rows, always the same."""
    chance = random.Random(0)
    lines = ["a,b,c,y"]
    for _ in range(200):
        a, b, c = (chance.uniform(-1, 1) for _ in range(3))
        lines.append(f"{a:.6f},{b:.6f},{c:.6f},{a + b + c + chance.gauss(0, 0.1):.6f}")
    path.write_text("\n".join(lines) + "\n")
    return path
