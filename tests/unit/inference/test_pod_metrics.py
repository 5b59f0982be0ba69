"""What a pod tells of its versions."""

from __future__ import annotations

from modelyard.inference.observation.pod_metrics import LifecycleMetrics, MemoryMetrics
from modelyard.inference.serving.desired import WantedModel, WantedVersion
from modelyard.inference.serving.memory import MemoryBudget
from modelyard.inference.serving.table import ModelEntry, ServingTable


async def test_versions_of_a_parked_model_are_neither_loaded_nor_loading() -> None:
    versions = {number: WantedVersion("m", number, "digest", 1, (), (), 20, 10, "", "", "", "") for number in (1, 2)}
    table = ServingTable()
    table.models["m"] = ModelEntry("m", wanted=WantedModel("m", versions, {"live": 1, "next": 2}), parked=True)
    told = {family.name: family for family in await LifecycleMetrics(table).metrics()}
    states = {sample.labels["state"]: sample.value for sample in told["modelyard_pod_versions"].samples}
    assert states == {"loaded": 0, "loading": 0, "broken": 0, "retiring": 0, "parked": 2}


async def test_memory_is_told_with_its_limit() -> None:
    budget = MemoryBudget(100)
    await budget.reserve("m", 30)
    told = {family.name: family.samples[0].value for family in await MemoryMetrics(budget).metrics()}
    assert told == {"modelyard_pod_memory_bytes": 30, "modelyard_pod_memory_limit_bytes": 100}
