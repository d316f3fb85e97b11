"""The fitted parts of the summary model: a booster per library, BG/NBD, a classifier and the mean; what each says of a row."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ml_pipeline.members import Member, load_member
from ml_pipeline.summary_columns import FloatArray, Matrix
from ml_pipeline.summary_forms import RULE_INPUTS, BoolArray, known, rule_spend
from ml_pipeline.summary_purchases import SummaryPurchases, tells_purchases

XGBOOST, LIGHTGBM, BG_NBD, PURCHASE = "xgboost", "lightgbm", "bg_nbd", "purchase"
MODEL_TYPES = (XGBOOST, LIGHTGBM, BG_NBD)
"""What can be asked for by name, where a bundle has it."""


@dataclass(frozen=True)
class SummaryMembers:
    """All matrices are summary matrices (n, C) with what they imply (`summary_columns.with_implied`).

    boosters: by MODEL_TYPES, money; purchase: whether anything is bought; mean: of the training rows' spend.
    """

    mean: float = 0.0
    boosters: Mapping[str, Member] = field(default_factory=dict)
    purchase: Member | None = None
    bg_nbd: SummaryPurchases | None = None

    @property
    def model_types(self) -> tuple[str, ...]:
        """Those of MODEL_TYPES that there are."""
        return tuple(name for name in MODEL_TYPES if name in self.boosters or (name == BG_NBD and self.bg_nbd))

    def without(self, names: Collection[str]) -> "SummaryMembers":
        """The same but for these members."""
        return SummaryMembers(
            self.mean,
            {name: booster for name, booster in self.boosters.items() if name not in names},
            None if PURCHASE in names else self.purchase,
            None if BG_NBD in names else self.bg_nbd,
        )

    def can_answer(self, name: str, matrix: Matrix) -> BoolArray:
        """Whether enough is known for a model or rule to say something, (n,): boosters need nothing."""
        if name == BG_NBD:
            return tells_purchases(matrix)
        needs = [known(matrix, one) for one in RULE_INPUTS.get(name, ())]
        return np.logical_and.reduce(needs) if needs else np.ones(len(matrix), dtype=bool)

    def spend(self, name: str, matrix: Matrix, threads: int = 1) -> FloatArray:
        """What a model or rule says of rows that it can answer, (n,), money ≥ 0."""
        if name in self.boosters:
            return self.boosters[name].predict(matrix, threads)
        if name == BG_NBD and self.bg_nbd:
            return self.bg_nbd.spend(matrix)
        return rule_spend(name, matrix, self.mean)

    def files(self) -> dict[str, str]:
        """Where each member's file is in the bundle, by its name."""
        own = {name: member.suffix for name, member in self._boosters().items()}
        if self.bg_nbd:
            own[BG_NBD] = ".json"
        return {name: f"members/summary_{name}{suffix}" for name, suffix in own.items()}

    def as_json(self) -> dict[str, Any]:
        """For a bundle's metadata: file and library of each member; integrators do not use them alone."""
        boosters = self._boosters()
        return {
            name: {
                "file": file,
                "library": boosters[name].library if name in boosters else BG_NBD,
                "integrators": False,
            }
            for name, file in self.files().items()
        }

    def save(self, folder: Path) -> None:
        """Writes the members' files below a bundle's folder."""
        parts: dict[str, Member | SummaryPurchases] = {**self._boosters()}
        if self.bg_nbd:
            parts[BG_NBD] = self.bg_nbd
        for name, file in self.files().items():
            parts[name].save(folder / file)

    @classmethod
    def load(cls, content: Mapping[str, Any], paths: Mapping[str, Path], mean: float) -> "SummaryMembers":
        """What `save` wrote. content: what `as_json` said; paths: of the files, by the member's name, checked already."""
        boosters = {
            name: load_member(member["library"], paths[name]) for name, member in content.items() if name != BG_NBD
        }
        purchase = boosters.pop(PURCHASE, None)
        return cls(mean, boosters, purchase, SummaryPurchases.load(paths[BG_NBD]) if BG_NBD in paths else None)

    def _boosters(self) -> dict[str, Member]:
        return {**self.boosters, **({PURCHASE: self.purchase} if self.purchase else {})}
