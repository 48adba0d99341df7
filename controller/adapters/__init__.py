"""The I/O: one module for each service, behind the protocols of `controller.scan`."""
