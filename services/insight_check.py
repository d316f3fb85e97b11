"""Whether a text may be shown as an insight: it is plain, short, and states no number that was not given."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """What is said of a customer, or of a group of customers, and what is to be done."""

    insight: str
    recommended_action: str
