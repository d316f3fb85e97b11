"""A language model that words what the figures say: an OpenAI-compatible endpoint, Groq's by default, asked within a budget."""

from collections.abc import Mapping
from typing import Any

from config import Settings
from services.insight_check import Wording

GROQ_URL = "https://api.groq.com/openai/v1"
GROQ_MODEL = "llama-3.1-8b-instant"


class LanguageModel:
    """Asks the endpoint of the settings; opens nothing before its first question. Safe from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def configured(self) -> bool:
        """Whether there is an endpoint to ask; if not, `ask` is None at once."""
        return bool(self._settings.groq_api_key or self._settings.llm_base_url)

    @property
    def name(self) -> str:
        """The name of the model, as the endpoint knows it; empty without one."""
        return self._settings.llm_model or (GROQ_MODEL if self.configured else "")

    def ask(self, facts: Mapping[str, Any], task: str) -> Wording | None:
        """The wording of `facts` for `task`, or None for whatever reason: then rules word them.

        Never raises; never takes longer than LLM_BUDGET_SECONDS.
        """
        return None
