"""``python -m hnswcheck``."""

from hnswcheck.cli import main

if __name__ == "__main__":
    main()
