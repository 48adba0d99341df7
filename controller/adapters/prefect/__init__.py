"""Prefect: reads flow runs, creates recoveries, asks abandoned runs to stop."""
