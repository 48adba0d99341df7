"""A real Prefect 3 server, and what tests ask of it."""

from devstack.prefect.api import ACTIVE, Deployment, PrefectApi
from devstack.prefect.server import Prefect

__all__ = ["ACTIVE", "Deployment", "Prefect", "PrefectApi"]
