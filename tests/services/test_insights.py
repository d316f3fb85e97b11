import pytest

from services.archetypes import Described
from services.insight_check import Wording
from services.insights import LANGUAGE_MODEL, RULES, Insights
from tests.services.test_insight_rules import facts_of, group

CUSTOMER = facts_of(Described(900.0, 300.0, 3, 4, 2, 5))


class Writer:
    """A language model of a few lines: says what it is told to, or raises it."""

    def __init__(self, says, configured=True):
        self.says, self.configured, self.asked = says, configured, []

    def ask(self, facts, task):
        self.asked.append((facts, task))
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


def test_the_language_models_words_are_taken_and_named_as_such():
    said = Insights(Writer(Wording("Buys at times.", "Write."))).of_customer(CUSTOMER)
    assert said.as_json() == {
        "insight": "Buys at times.",
        "recommended_action": "Write.",
        "insight_source": LANGUAGE_MODEL,
    }


@pytest.mark.parametrize(
    "writer",
    [Writer(None), Writer(RuntimeError("secret")), Writer(Wording("never asked", "never asked"), configured=False)],
    ids=["it has none", "it fails", "there is none"],
)
def test_without_them_rules_word_the_facts(writer, caplog):
    insights, rules = Insights(writer), Insights(Writer(None))
    for said, otherwise in (
        (insights.of_customer(CUSTOMER), rules.of_customer(CUSTOMER)),
        (insights.of_group(group()), rules.of_group(group())),
    ):
        assert said == otherwise
        assert said.source == RULES
    assert "secret" not in caplog.text


def test_it_is_told_the_facts_and_nothing_else():
    writer = Writer(None)
    Insights(writer).of_customer(CUSTOMER)
    Insights(writer).of_group(group())
    assert [facts for facts, _task in writer.asked] == [CUSTOMER.as_json(), group().as_json()]
    assert writer.asked[0][1] != writer.asked[1][1]


def test_who_is_not_there_is_not_asked():
    writer = Writer(None, configured=False)
    Insights(writer).of_customer(CUSTOMER)
    assert writer.asked == []
