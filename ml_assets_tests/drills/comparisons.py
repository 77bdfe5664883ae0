"""Thousands of comparisons of models that are equally good, and of some that are worse: how often one is called better.

.venv/bin/python -W ignore -m ml_assets_tests.drills.comparisons --comparisons 2000 --seed 1

Each comparison is of two models on rows of its own, by `ml.comparison.compare`. Equally good models have the same
signal and noise of their own, so that neither is better but by chance; a worse one has more noise. Prints for each kind
of task and number of rows how often the challenger was called better and worse.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ml_assets.ml.comparison import compare
from ml_assets.ml.evaluation import Scored
from ml_assets.spec.base import Task

KINDS: tuple[tuple[Task, str], ...] = (
    ("binary", "roc_auc"),
    ("binary", "f1"),
    ("multiclass", "accuracy"),
    ("regression", "rmse"),
)


@dataclass(frozen=True)
class Shown:
    """Outcomes of comparisons of one kind."""

    metric: str
    rows: int
    comparisons: int
    better: int
    worse: int


def pair(task: Task, rows: int, random: np.random.Generator, worse: float = 0.0) -> tuple[Scored, Scored]:
    """A challenger and a champion on the same rows; the challenger has `worse` times more noise."""
    noises = (1 + worse, 1.0)
    if task == "regression":
        truth = random.normal(0, 2, rows)
        return tuple(Scored(truth, truth + random.normal(0, each, rows), [], task) for each in noises)  # type: ignore[return-value]
    classes = 2 if task == "binary" else 3
    truth = random.choice(classes, rows, p=[0.75, 0.25] if classes == 2 else [0.5, 0.3, 0.2])
    shared = random.normal(0, 1, (rows, classes))  # both find the same rows hard

    def model(noise: float) -> Scored:
        raw = 1.5 * np.eye(classes)[truth] + shared + random.normal(0, noise, (rows, classes))
        scores = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
        return Scored(truth, scores, list(range(classes)), task, 0.4 if classes == 2 else None)

    return model(noises[0]), model(noises[1])


def drill(
    comparisons: int,
    first: int,
    rows: Sequence[int] = (100, 400, 2000),
    worse: float = 0.0,
    tell: Callable[[str], None] = print,
) -> list[Shown]:
    """Make at least so many comparisons, as many of each kind of task and number of rows.

    Args:
        first: the seed.
        worse: how much more noise the challenger has.
    """
    random = np.random.default_rng(first)
    each = -(-comparisons // (len(KINDS) * len(rows)))
    found = []
    tell("| task | metric | rows | comparisons | challenger called better | called worse |")
    tell("|---|---|---|---|---|---|")
    for task, metric in KINDS:
        for count in rows:
            outcomes = Counter(
                compare(*pair(task, count, random, worse), metric, "1", 100, held_out=count, seed=number).outcome
                for number in range(each)
            )
            one = Shown(metric, count, each, outcomes["better"], outcomes["worse"])
            found.append(one)
            tell(
                f"| {task} | {metric} | {count:,} | {each:,} | {one.better} ({one.better / each:.1%}) | "
                f"{one.worse} ({one.worse / each:.1%}) |"
            )
    total, better, bad = (sum(getattr(one, name) for one in found) for name in ("comparisons", "better", "worse"))
    tell(f"| all | | | {total:,} | {better} ({better / total:.1%}) | {bad} ({bad / total:.1%}) |")
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--comparisons", type=int, default=2000)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    print("Equally good:\n")
    drill(chosen.comparisons, chosen.seed)
    print("\nThe challenger has a third more noise:\n")
    drill(chosen.comparisons // 10, chosen.seed, worse=1 / 3)


if __name__ == "__main__":
    main()
