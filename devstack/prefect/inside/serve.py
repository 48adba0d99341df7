"""Serves the Prefect API as `prefect server start` does, half a second sooner: `python -P serve.py PORT`.

Runs with the Python of Prefect's own virtual environment.
"""

import gc
import sys


def main(port: int) -> None:
    """Serve until told to stop."""
    gc.disable()  # collecting while half a million objects are made that all stay takes a sixth of the start
    import uvicorn  # type: ignore[import-not-found, unused-ignore]
    from prefect.server.api.server import create_app  # type: ignore[import-not-found, unused-ignore]

    app = create_app(final=True)
    gc.freeze()
    gc.enable()
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
