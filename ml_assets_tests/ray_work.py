"""What tests let workers of a cluster do; a module of few imports, which each worker makes anew."""

import os

import pandas as pd


def explode(threads: int, number: int) -> int:
    os._exit(1)


def wrong(threads: int, number: int) -> int:
    raise ValueError(f"{number} is wrong")


def total(threads: int, sent: pd.DataFrame, number: int) -> tuple[int, int]:
    """A sum, and which node's it is: each has a process of its own that starts workers."""
    return int(sent["x"].sum()) + number, os.getppid()
