"""Who may call what: one table for every method of every service. What is not in it is denied.

A test enumerates the methods of all services and fails for one that is missing here.
"""

from __future__ import annotations

from enum import Enum, StrEnum, unique


@unique
class Permission(StrEnum):
    """A right that a role gives."""

    JOBS_CREATE = "jobs.create"
    JOBS_READ = "jobs.read"
    JOBS_CANCEL = "jobs.cancel"
    JOBS_WORK = "jobs.work"
    TOKENS_CREATE = "tokens.create"
    TOKENS_READ = "tokens.read"
    MODELS_READ = "models.read"
    MODELS_WRITE = "models.write"
    MODELS_WATCH = "models.watch"
    MODELS_PREDICT = "models.predict"
    MODELS_LOAD = "models.load"
    PODS_CONFIGURE = "pods.configure"
    """To read and change what a pod logs and traces."""
    DATASETS_READ = "datasets.read"
    DATASETS_WRITE = "datasets.write"
    ARTIFACTS_READ = "artifacts.read"
    ARTIFACTS_WRITE = "artifacts.write"
    ARTIFACTS_DELETE = "artifacts.delete"
    TENANTS_READ = "tenants.read"
    """To see the shares and bounds of all tenants."""
    TENANTS_WRITE = "tenants.write"
    """To change the shares and bounds of tenants."""
    TENANTS_ALL = "tenants.all"
    """To act in every tenant."""


class Access(Enum):
    """What a method asks for beside a permission."""

    PUBLIC = "public"
    """No token: probes and reflection."""
    ANY_TOKEN = "any token"  # noqa: S105 - a word for people, no secret
    """Any valid token."""


_VIEWER = frozenset({
    Permission.JOBS_READ, Permission.MODELS_READ, Permission.DATASETS_READ, Permission.ARTIFACTS_READ,
    Permission.MODELS_PREDICT,
})  # fmt: skip
_DEVELOPER = _VIEWER | {
    Permission.JOBS_CREATE, Permission.JOBS_CANCEL, Permission.MODELS_WRITE, Permission.DATASETS_WRITE,
    Permission.ARTIFACTS_WRITE, Permission.TOKENS_CREATE,
}  # fmt: skip

ROLE_PERMISSIONS: dict[str, frozenset[Permission]] = {
    "admin": frozenset(Permission),
    "developer": _DEVELOPER,
    "viewer": _VIEWER,
    "predictor": frozenset({Permission.MODELS_PREDICT}),
    "worker": frozenset({
        Permission.JOBS_WORK, Permission.DATASETS_READ, Permission.ARTIFACTS_READ, Permission.ARTIFACTS_WRITE,
    }),
    "service": frozenset({
        Permission.MODELS_READ, Permission.MODELS_WRITE, Permission.MODELS_WATCH, Permission.DATASETS_READ,
        Permission.ARTIFACTS_READ, Permission.ARTIFACTS_DELETE, Permission.TENANTS_ALL,
    }),
}  # fmt: skip
"""Role names as they stand in a token: `Role` of the API, in lower case without prefix."""


def permissions_of(roles: frozenset[str]) -> frozenset[Permission]:
    """All that these roles give. An unknown role gives nothing."""
    return frozenset().union(*(ROLE_PERMISSIONS.get(role, frozenset()) for role in roles))


def _service(name: str, methods: dict[str, Permission | Access]) -> dict[str, Permission | Access]:
    return {f"/{name}/{method}": needed for method, needed in methods.items()}


METHOD_TABLE: dict[str, Permission | Access] = {
    **_service("modelyard.v1.TrainingService", {
        "CreateTrainingJob": Permission.JOBS_CREATE,
        "GetTrainingJob": Permission.JOBS_READ,
        "ListTrainingJobs": Permission.JOBS_READ,
        "CancelTrainingJob": Permission.JOBS_CANCEL,
        "WatchTrainingJob": Permission.JOBS_READ,
        "PauseTrainingJob": Permission.JOBS_CANCEL,
        "ResumeTrainingJob": Permission.JOBS_CANCEL,
        "PreemptTrainingJob": Permission.JOBS_CANCEL,
        "ExplainTrainingJob": Permission.JOBS_READ,
        "ListTrainingAttempts": Permission.JOBS_READ,
        "ListTrainingProgress": Permission.JOBS_READ,
        "ListQueues": Permission.JOBS_READ,
        "ListWorkers": Permission.JOBS_READ,
    }),
    **_service("modelyard.v1.WorkerService", {
        "ClaimTrainingJob": Permission.JOBS_WORK,
        "ReportTrainingJob": Permission.JOBS_WORK,
        "AnnounceCheckpoint": Permission.JOBS_WORK,
        "FinishTrainingJob": Permission.JOBS_WORK,
        "ReportWorker": Permission.JOBS_WORK,
    }),
    **_service("modelyard.v1.AccessService", {
        "CreateToken": Permission.TOKENS_CREATE,
        "GetCaller": Access.ANY_TOKEN,
        "ListTokens": Permission.TOKENS_READ,
        "GetTenant": Permission.JOBS_READ,
        "ListTenants": Permission.TENANTS_READ,
        "UpdateTenant": Permission.TENANTS_WRITE,
    }),
    **_service("modelyard.v1.ModelService", {
        "CreateModel": Permission.MODELS_WRITE,
        "GetModel": Permission.MODELS_READ,
        "UpdateModel": Permission.MODELS_WRITE,
        "ListModels": Permission.MODELS_READ,
        "CreateModelVersion": Permission.MODELS_WRITE,
        "GetModelVersion": Permission.MODELS_READ,
        "ListModelVersions": Permission.MODELS_READ,
        "SetModelAlias": Permission.MODELS_WRITE,
        "GetModelAlias": Permission.MODELS_READ,
        "DeleteModelAlias": Permission.MODELS_WRITE,
        "RollbackModelAlias": Permission.MODELS_WRITE,
        "ListModelAliasChanges": Permission.MODELS_READ,
        "PromoteModelVersion": Permission.MODELS_WRITE,
        "GetShadowReport": Permission.MODELS_READ,
        "WatchModels": Permission.MODELS_WATCH,
    }),
    **_service("modelyard.v1.PodService", {
        "ListPods": Permission.MODELS_READ,
        "ReportPod": Permission.MODELS_WATCH,
    }),
    **_service("modelyard.v1.DatasetService", {
        "CreateDataset": Permission.DATASETS_WRITE,
        "GetDataset": Permission.DATASETS_READ,
        "ListDatasets": Permission.DATASETS_READ,
    }),
    **_service("modelyard.v1.ArtifactService", {
        "StartUpload": Permission.ARTIFACTS_WRITE,
        "GetUpload": Permission.ARTIFACTS_WRITE,
        "WriteUpload": Permission.ARTIFACTS_WRITE,
        "GetBlob": Permission.ARTIFACTS_READ,
        "ReadBlob": Permission.ARTIFACTS_READ,
        "DeleteBlob": Permission.ARTIFACTS_DELETE,
    }),
    **_service("inference.GRPCInferenceService", {
        "ServerLive": Access.PUBLIC,
        "ServerReady": Access.PUBLIC,
        "ServerMetadata": Permission.MODELS_PREDICT,
        "ModelReady": Permission.MODELS_PREDICT,
        "ModelMetadata": Permission.MODELS_PREDICT,
        "ModelInfer": Permission.MODELS_PREDICT,
        "ModelStreamInfer": Permission.MODELS_PREDICT,
        "ModelConfig": Permission.MODELS_PREDICT,
        "ModelStatistics": Permission.MODELS_PREDICT,
        "RepositoryIndex": Permission.MODELS_PREDICT,
        "RepositoryModelLoad": Permission.MODELS_LOAD,
        "RepositoryModelUnload": Permission.MODELS_LOAD,
        "SystemSharedMemoryStatus": Permission.MODELS_PREDICT,
        "SystemSharedMemoryRegister": Permission.MODELS_PREDICT,
        "SystemSharedMemoryUnregister": Permission.MODELS_PREDICT,
        "CudaSharedMemoryStatus": Permission.MODELS_PREDICT,
        "CudaSharedMemoryRegister": Permission.MODELS_PREDICT,
        "CudaSharedMemoryUnregister": Permission.MODELS_PREDICT,
        "TraceSetting": Permission.PODS_CONFIGURE,
        "LogSettings": Permission.PODS_CONFIGURE,
    }),
    **_service("grpc.health.v1.Health", {"Check": Access.PUBLIC, "List": Access.PUBLIC, "Watch": Access.PUBLIC}),
    **_service("grpc.reflection.v1alpha.ServerReflection", {"ServerReflectionInfo": Access.PUBLIC}),
    **_service("grpc.reflection.v1.ServerReflection", {"ServerReflectionInfo": Access.PUBLIC}),
}  # fmt: skip
