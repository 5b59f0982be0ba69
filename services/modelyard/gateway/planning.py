"""Checks a spec against the data it names."""

from __future__ import annotations

import asyncio

from modelyard.core.errors import AlreadyExists, ModelyardError, NotFound
from modelyard.core.names import DATASET, MODEL
from modelyard.core.tokens import Caller
from modelyard.training import CheckedSpec, check_spec
from modelyard.v1.dataset_pb2 import Dataset
from modelyard.v1.training_spec_pb2 import TrainingSpec

from .registry import Registry
from .submission import Plan

PATH = "training_job.spec"
"""Where the spec stands in the request."""


class RegistryPlanner:
    """Plans with what the registry says of dataset and model."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def plan(self, spec: bytes, caller: Caller) -> Plan:
        """See `submission.Planner`."""
        sent = TrainingSpec.FromString(spec)
        try:
            dataset, _ = await asyncio.gather(self._dataset(sent, caller), self._check_model(sent, caller))
        except ModelyardError:
            check_spec(sent, None, PATH)  # what is wrong with the spec itself comes first
            raise
        return _plan(check_spec(sent, dataset, PATH), dataset)

    async def _dataset(self, spec: TrainingSpec, caller: Caller) -> Dataset:
        DATASET.parse(spec.dataset, f"{PATH}.dataset")
        try:
            return await self._registry.dataset(
                spec.dataset, subject=caller.subject, tenant=caller.tenant, roles=caller.roles
            )
        except NotFound as error:
            error.metadata["field"] = f"{PATH}.dataset"
            raise

    async def _check_model(self, spec: TrainingSpec, caller: Caller) -> None:
        """A result that nobody may publish is not worth training."""
        MODEL.parse(spec.model, f"{PATH}.model")
        owner = await self._registry.model_tenant(spec.model)
        if owner not in {None, caller.tenant}:
            raise AlreadyExists(
                f"{spec.model} belongs to another tenant; choose another name",
                metadata={"resource": spec.model, "field": f"{PATH}.model"},
            )


def _plan(checked: CheckedSpec, dataset: Dataset) -> Plan:
    spec = checked.spec
    return Plan(
        spec=spec.SerializeToString(deterministic=True),
        spec_digest=checked.digest,
        model=MODEL.parse(spec.model, f"{PATH}.model")["model"],
        alias="" if spec.publication.keep_alias else spec.publication.alias,
        dataset=DATASET.parse(spec.dataset, f"{PATH}.dataset")["dataset"],
        dataset_digest=dataset.digest,
        dataset_snapshot=dataset.SerializeToString(deterministic=True),
        parameter_count=checked.parameter_count,
    )
