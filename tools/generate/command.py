"""What every generator does with its text: print it, or write its file."""

import argparse
import sys
from pathlib import Path


def print_or_write(text: str, file: Path) -> None:
    """Print a text or, with `--write` on the command line, write it into its file."""
    parser = argparse.ArgumentParser(description=f"Generate {file.name}.")
    parser.add_argument("--write", action="store_true", help=f"write {file.name} instead of standard output")
    if parser.parse_args().write:
        file.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
