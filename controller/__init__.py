"""The video recovery controller: finds videos that are stuck before processing, and retries them, once."""
