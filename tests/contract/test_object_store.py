"""What `controller.ports.ObjectStore` promises, of the world in memory and of Storage."""

import pytest

from controller.errors import ErrorReason, ScanError


async def test_the_files_that_are_there_are_told_from_those_that_are_not(store):
    store.put("t/v1.mp4")
    store.put("t/v2.mp4")

    async with store.open() as opened:
        await opened.check()
        assert await opened.existing_files(["t/v1.mp4", "t/v3.mp4", "t/v1.mp4"]) == {"t/v1.mp4"}


@pytest.mark.parametrize("path", ["t", "t/", "t/V1.mp4", "v1.mp4", "t/v1"], ids=str)
async def test_a_file_is_at_its_path_and_nowhere_else(path, store):
    store.put("t/v1.mp4")

    async with store.open() as opened:
        assert await opened.existing_files([path]) == set()


async def test_of_no_paths_there_is_no_file(store):
    async with store.open() as opened:
        assert await opened.existing_files([]) == set()


async def test_where_there_is_no_bucket_nobody_knows_of_files(store):
    store.put("t/v1.mp4")
    store.remove_bucket()

    async with store.open() as opened:
        with pytest.raises(ScanError) as checked:
            await opened.check()
        with pytest.raises(ScanError) as asked:
            await opened.existing_files(["t/v1.mp4"])

    assert checked.value.reason is asked.value.reason is ErrorReason.BUCKET_NOT_FOUND
