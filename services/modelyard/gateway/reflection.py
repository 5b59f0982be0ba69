"""Whose descriptors the gateway's reflection shows: every public service behind the door, none of the internal ones."""

from __future__ import annotations

from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from modelyard.oip.pool import pool_with
from modelyard.v1 import (
    access_service_pb2,
    artifact_service_pb2,
    dataset_service_pb2,
    errors_pb2,
    model_service_pb2,
    pod_service_pb2,
    training_service_pb2,
)

TRAINING_SERVICE = "modelyard.v1.TrainingService"
ACCESS_SERVICE = "modelyard.v1.AccessService"
REGISTRY_SERVICES = (
    "modelyard.v1.ModelService",
    "modelyard.v1.PodService",
    "modelyard.v1.DatasetService",
    "modelyard.v1.ArtifactService",
)
INFERENCE_SERVICE = "inference.GRPCInferenceService"

OWN_SERVICES = (TRAINING_SERVICE, ACCESS_SERVICE)
"""Public services that this process serves itself."""

PUBLIC_SERVICES = (*OWN_SERVICES, *REGISTRY_SERVICES, INFERENCE_SERVICE)


def public_pool() -> DescriptorPool:
    """A pool of its own with the public services' files, the details of errors, and all they import."""
    files = (
        training_service_pb2, access_service_pb2, model_service_pb2, pod_service_pb2, dataset_service_pb2,
        artifact_service_pb2, errors_pb2, error_details_pb2, health_pb2, reflection_pb2,
    )  # fmt: skip
    return pool_with(file.DESCRIPTOR for file in files)
