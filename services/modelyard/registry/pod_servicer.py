"""modelyard.v1.PodService: converts, delegates, converts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc.aio

from modelyard.core.interceptors import current_caller
from modelyard.core.paging import page_size
from modelyard.v1 import pod_service_pb2 as pb
from modelyard.v1 import pod_service_pb2_grpc

from .pod_converters import from_model_filter, from_report, to_pod, to_report_response
from .pods import Pods

_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class PodServicer(pod_service_pb2_grpc.PodServiceServicer):
    """Pods tell of themselves; callers see those versions in them that are their tenant's."""

    pods: Pods

    async def ListPods(self, request: pb.ListPodsRequest, _context: _Context) -> pb.ListPodsResponse:
        """See the proto."""
        page, token = await self.pods.list(
            current_caller(), page_size(request.page_size), request.page_token, from_model_filter(request.model)
        )
        return pb.ListPodsResponse(pods=[to_pod(pod) for pod in page], next_page_token=token)

    async def ReportPod(self, request: pb.ReportPodRequest, _context: _Context) -> pb.ReportPodResponse:
        """See the proto."""
        known = await self.pods.report(from_report(request))
        return to_report_response(self.pods.lease_s, known=known)
