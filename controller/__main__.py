"""`python -m controller`: the same as `video-recovery`."""

from controller.cli import main

if __name__ == "__main__":
    main()
