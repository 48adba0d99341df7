"""`python -m controller` is the same program as `video-recovery`."""

from controller.cli import main

if __name__ == "__main__":
    main(prog_name="video-recovery")
