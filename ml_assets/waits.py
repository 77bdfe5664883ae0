"""How long to wait after a failure: the one rule for sources, partitions and runs."""

from datetime import timedelta

MOST_ATTEMPTS = 5  # at growing intervals; then it is a case for a person
FIRST_WAIT = timedelta(seconds=30)
PROBE = timedelta(minutes=15)  # how often a source that is a case for a person is asked whether it is back


def wait_after(failures: int) -> timedelta:
    """Time until the next attempt after so many failures: 30 s, doubled each time; from the fifth on 15 minutes.

    >>> [wait_after(failures).total_seconds() for failures in (1, 2, 4, 5)]
    [30.0, 60.0, 240.0, 900.0]
    """
    return PROBE if failures >= MOST_ATTEMPTS else FIRST_WAIT * 2 ** (failures - 1)
