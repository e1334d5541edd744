"""``python -m scorequeue``: the command line."""

from scorequeue.cli import main

if __name__ == "__main__":
    main()
