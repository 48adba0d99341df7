"""Real parts for the demo, the tests and the benchmarks: PostgreSQL, PostgREST, Prefect and a control plane.

Everything listens on free loopback ports, needs no container engine and no root, and is gone when its `with` block
ends, or when this process dies. `Stack` starts all of it; each part starts alone as well. `python -m devstack build`
prepares, once, what has to be built or fetched; every part does that for itself where it was not done before.
"""

from devstack.controlplane import ControlPlane
from devstack.errors import Broken, Unavailable
from devstack.postgres import Postgres
from devstack.prefect import Deployment, Prefect
from devstack.stack import Stack
from devstack.supabase import Supabase
from devstack.worker import Worker

__all__ = [
    "Broken",
    "ControlPlane",
    "Deployment",
    "Postgres",
    "Prefect",
    "Stack",
    "Supabase",
    "Unavailable",
    "Worker",
]
