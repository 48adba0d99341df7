"""The commands, a module each; `controller.cli.program` imports one only when it is run."""
