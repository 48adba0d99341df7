"""The flow that processes a video: it marks the row, works for a moment, and marks it again.

Runs with the Python of Prefect's own virtual environment, started by a worker; `SUPABASE_URL` and
`SUPABASE_SERVICE_ROLE_KEY` come from the worker's environment.
"""

import asyncio
import os
from datetime import UTC, datetime

import httpx
from prefect import flow  # type: ignore[import-not-found, unused-ignore]


# Asynchronous because at the end of any other flow Prefect waits up to a second for its thread of heartbeats.
@flow(name="captionacc-video-initial-processing")  # type: ignore[untyped-decorator, unused-ignore]
async def process_video(video_id: str, tenant_id: str, storage_key: str) -> None:
    """Process one video; the run fails if its row is gone."""
    async with _rest() as rest:
        await _set_status(rest, video_id, "processing")
        await asyncio.sleep(float(os.environ["PROCESSING_SECONDS"]))
        await _set_status(rest, video_id, "ready")


def _rest() -> httpx.AsyncClient:
    key = os.environ["SUPABASE_SERVICE_ROLE_KEY"]
    headers = {"apikey": key, "Content-Profile": "captionacc", "Prefer": "return=representation"}
    if not key.startswith("sb_"):  # a new key is no JWT
        headers["Authorization"] = f"Bearer {key}"
    return httpx.AsyncClient(base_url=f"{os.environ['SUPABASE_URL']}/rest/v1", headers=headers)


async def _set_status(rest: httpx.AsyncClient, video_id: str, status: str) -> None:
    changes = {"status": status, "updated_at": datetime.now(UTC).isoformat()}
    answer = await rest.patch("/videos", params={"id": f"eq.{video_id}"}, json=changes)
    if not answer.raise_for_status().json():
        raise LookupError(f"there is no video {video_id}")
