"""The shop's own program: it asks the endpoint about each order of a day, by the order's id, as the order comes in."""

from collections import Counter
from datetime import date

from ml_assets.demo.business import Business
from ml_assets.deployment.local import LocalTarget

MODEL = "late_deliveries"


def ask_about(target: LocalTarget, business: Business, day: date) -> Counter[str]:
    """Ask about all orders of a day, one request each.

    Returns:
        How many each version answered; none if no server serves the model.

    Raises:
        EndpointError: if an order is not answered.
    """
    answered: Counter[str] = Counter()
    health = target.health()
    if health is None or MODEL not in health["models"]:
        return answered
    url = target.url()
    for order in business.asked(day):
        answer = target.ask(MODEL, [order], url, ids=[order["order_id"]])
        answered[answer["version"]] += 1
    return answered
