"""The I/O: a package for each service, behind the protocols of `controller.ports`."""
