"""Insights and actions: worded by the language model where one is configured and does well, by rules otherwise."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from services.insight_check import Wording
from services.insight_facts import CustomerFacts, GroupFacts
from services.insight_rules import customer_wording, group_wording

log = logging.getLogger(__name__)

RULES = "rules"
LANGUAGE_MODEL = "language_model"
SOURCES = (RULES, LANGUAGE_MODEL)

CUSTOMER_TASK = (
    "The facts describe a customer of a shop by what was bought so far, beside the other customers, and by what is predicted. "
    "Say for a marketing analyst what kind of customer this is and what stands out, and what to do about it. Claim no causes."
)
GROUP_TASK = (
    "The facts describe a group of customers of a shop by what they are predicted to spend together. Say for a marketing "
    "analyst what stands out in the group, and what to begin with. Claim no causes."
)
"""Without a number: what the task says may be said."""


class Writer(Protocol):
    """What words facts: `language_model.LanguageModel`."""

    @property
    def configured(self) -> bool:
        """Whether it is worth asking."""
        ...

    def ask(self, facts: Mapping[str, Any], task: str) -> Wording | None:
        """The wording, or None: then rules word the facts."""
        ...


@dataclass(frozen=True)
class Insight:
    """What is said, what is to be done, and who worded it: one of SOURCES."""

    insight: str
    recommended_action: str
    source: str

    def as_json(self) -> dict[str, str]:
        """As answers have it."""
        return {
            "insight": self.insight,
            "recommended_action": self.recommended_action,
            "insight_source": self.source,
        }


class Insights:
    """Words facts; always with an answer. What was predicted is done by then and does not depend on it."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def of_customer(self, facts: CustomerFacts) -> Insight:
        """Of one customer."""
        return self._asked(facts.as_json(), CUSTOMER_TASK) or _by_rules(customer_wording(facts))

    def of_group(self, facts: GroupFacts) -> Insight:
        """Of a group of customers."""
        return self._asked(facts.as_json(), GROUP_TASK) or _by_rules(group_wording(facts))

    def _asked(self, facts: Mapping[str, Any], task: str) -> Insight | None:
        if not self._writer.configured:
            return None
        try:
            wording = self._writer.ask(facts, task)
        except Exception as problem:  # noqa: BLE001 - whatever it is, a prediction never fails for its wording
            log.error("the language model could not be asked", extra={"error": type(problem).__name__})
            return None
        return Insight(wording.insight, wording.recommended_action, LANGUAGE_MODEL) if wording else None


def _by_rules(wording: Wording) -> Insight:
    return Insight(wording.insight, wording.recommended_action, RULES)
