"""Modelyard as it is measured: the whole local cluster with tokens on, and beside it a pod that is called directly."""

from .cluster import Cluster, running_cluster

__all__ = ["Cluster", "running_cluster"]
