"""Why a prediction is what it is, in words: related features told as one theme, in cents that add up to what is served.

A theme's money is the sum of its features' contributions; its words are those of the feature that contributed most in the
theme's own direction. Per customer and column of money:

    baseline + reasons + everything else + adjustment == prediction, to the cent.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ml_pipeline.explanations import Explained, explain
from ml_pipeline.feature_definitions import Feature
from ml_pipeline.features import feature_set
from ml_pipeline.members import Matrix
from ml_pipeline.predictor import Predictor
from ml_pipeline.reconcile import cents_that_add_up
from ml_pipeline.snapshot import CENTS, Snapshot
from ml_pipeline.wording import Occasion

TOP = 5
"""So many reasons are told, and more where they would leave too much unexplained."""
EXPLAINED_SHARE = 0.8
"""Of all that moves the prediction, up and down added up, at least this share is told in reasons of its own."""

EVERYTHING_ELSE = "everything else"
EVERYTHING_ELSE_WORDS = "what is left of smaller reasons"
ADJUSTMENT = "adjustment"
ADJUSTMENT_WORDS = "what belongs to no single fact"
NOT_BOUGHT_YET = "no purchase yet"
NOT_BOUGHT_YET_WORDS = "has not bought yet: what such customers usually spend"

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Reason:
    """One theme: its words, its money (two decimals) and the features that it sums, the strongest first."""

    theme: str
    words: str
    amount: float
    features: tuple[str, ...]


@dataclass(frozen=True)
class Contribution:
    """What one feature moved: its value, None where it is missing, and the money, rounded on its own."""

    feature: str
    value: float | None
    amount: float


@dataclass(frozen=True)
class Account:
    """One customer and one column of money; baseline + the reasons' amounts + adjustment == prediction, in cents."""

    baseline: float
    reasons: tuple[Reason, ...]
    adjustment: float
    prediction: float
    contributions: tuple[Contribution, ...]


@dataclass(frozen=True)
class Reasons:
    """n customers, m columns of money, F features, T themes, at most K reasons each.

    shown: int64 (n, m, K), which theme, the strongest first, -1 where there are no more. voices: int64 (n, m, K), the
    feature whose words tell it. cents: int64 (n, m, K + 3): baseline, the K reasons, everything else, adjustment.
    served: int64 (n, m) cents, the sum of `cents`. contributions: float64 (n, m, F) money. values: float32 (n, F).
    never_bought: bool (n,); their baseline is all that is served.
    """

    features: tuple[Feature, ...]
    occasion: Occasion
    values: Matrix
    never_bought: BoolArray
    contributions: FloatArray
    shown: IntArray
    voices: IntArray
    cents: IntArray
    served: IntArray

    @cached_property
    def themes(self) -> tuple[str, ...]:
        """What features are told as, in the order of the features."""
        return themes_of(self.features)[0]

    @cached_property
    def _of_feature(self) -> IntArray:
        return themes_of(self.features)[1]

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    def account(self, customer: int, column: int) -> Account:
        """All that is told of one number."""
        cents = self.cents[customer, column] / CENTS
        return Account(
            baseline=float(cents[0]),
            reasons=tuple(self._reasons(customer, column)),
            adjustment=float(cents[-1]),
            prediction=float(self.served[customer, column] / CENTS),
            contributions=tuple(self._contributions(customer, column)),
        )

    def _reasons(self, customer: int, column: int) -> Iterator[Reason]:
        if self.never_bought[customer]:
            yield Reason(NOT_BOUGHT_YET, NOT_BOUGHT_YET_WORDS, 0.0, ())
            return
        moved = self.contributions[customer, column]
        strongest_first = np.argsort(-np.abs(moved), kind="stable")
        strongest_first = strongest_first[moved[strongest_first] != 0]
        themes = self._of_feature[strongest_first]
        told = self.shown[customer, column]
        for place, theme in enumerate(told):
            cents = int(self.cents[customer, column, place + 1])
            if theme >= 0 and cents:
                members = strongest_first[themes == theme]
                words = self._words(customer, column, place)
                yield Reason(self.themes[theme], words, cents / CENTS, self._named(members))
        rest = int(self.cents[customer, column, -2])
        if rest:
            members = strongest_first[~np.isin(themes, told)]
            yield Reason(EVERYTHING_ELSE, EVERYTHING_ELSE_WORDS, rest / CENTS, self._named(members))

    def phrases(self, voices: IntArray, customers: IntArray) -> npt.NDArray[np.object_]:
        """The words of features (k,) for customers (k,); each distinct value is put into words once."""
        values = np.ascontiguousarray(self.values[customers, voices])
        keys = np.left_shift(voices, 32) | values.view(np.uint32).astype(np.int64)
        _distinct, first, which = np.unique(keys, return_index=True, return_inverse=True)
        said = [self.features[voices[row]].words(float(values[row]), self.occasion) for row in first]
        return np.array(said, dtype=object)[which]

    def _words(self, customer: int, column: int, place: int) -> str:
        voice = int(self.voices[customer, column, place])
        return self.features[voice].words(float(self.values[customer, voice]), self.occasion)

    def _named(self, members: IntArray) -> tuple[str, ...]:
        return tuple(self._names[feature] for feature in members)

    def _contributions(self, customer: int, column: int) -> Iterator[Contribution]:
        cents = np.rint(self.contributions[customer, column] * CENTS)
        for feature in np.argsort(-np.abs(cents), kind="stable"):
            if cents[feature] == 0:
                return
            value = self.values[customer, feature]
            # by its shortest text: 0.1 and not the 0.10000000149 that a float32 is as a float64
            shown = None if np.isnan(value) else float(str(value))
            yield Contribution(self._names[feature], shown, float(cents[feature] / CENTS))


def explain_customers(predictor: Predictor, snapshot: Snapshot, positions: npt.ArrayLike, top: int = TOP) -> Reasons:
    """The reasons for the very numbers that the snapshot holds at these rows (n,), in their order.

    What the predictor says otherwise than the snapshot, if anything, goes to the adjustment.
    """
    rows = np.asarray(positions, dtype=np.int64)
    served = np.rint(snapshot.money(rows)[0] * CENTS).astype(np.int64)
    return explain_answers(predictor, Occasion(snapshot.currency, snapshot.as_of), snapshot.features(rows), served, top)


def explain_answers(
    predictor: Predictor, occasion: Occasion, values: Matrix, served: IntArray, top: int = TOP
) -> Reasons:
    """The reasons for served money, (n, m) cents, of customers with these features, (n, F); NaN rows never bought."""
    never: BoolArray = np.asarray(np.isnan(values).all(axis=1))
    baseline = served / CENTS
    contributions = np.zeros((*served.shape, values.shape[1]))
    if not never.all():
        explained: Explained = explain(predictor, values[~never])
        baseline[~never] = explained.baseline
        contributions[~never] = explained.contributions
    return tell(
        feature_set(predictor.metadata.targets),
        occasion,
        values=values,
        never_bought=never,
        baseline=baseline,
        contributions=contributions,
        served=served,
        top=top,
    )


def tell(
    features: Sequence[Feature],
    occasion: Occasion,
    *,
    values: Matrix,
    never_bought: BoolArray,
    baseline: FloatArray,
    contributions: FloatArray,
    served: IntArray,
    top: int = TOP,
) -> Reasons:
    """Chooses and adds up the reasons. baseline: (n, m) money, the rest as in `Reasons`; what is missing is adjustment."""
    _themes, of_feature = themes_of(features)
    by_theme = _summed(contributions, of_feature)
    shown = _strongest(by_theme, top)
    there = shown >= 0
    amounts = np.where(there, np.take_along_axis(by_theme, np.maximum(shown, 0), axis=2), 0.0)
    moved = by_theme.sum(axis=2)
    rest = moved - amounts.sum(axis=2)
    start = np.rint(baseline * CENTS)  # before anything is shared out: all buyers start at the same cents
    adjustment = served - start - moved * CENTS
    exact = np.concatenate([start[..., None], amounts * CENTS, rest[..., None] * CENTS, adjustment[..., None]], axis=2)
    voices = np.take_along_axis(_loudest(contributions, by_theme, of_feature), np.maximum(shown, 0), axis=2)
    return Reasons(
        features=tuple(features),
        occasion=occasion,
        values=values,
        never_bought=never_bought,
        contributions=contributions,
        shown=shown,
        voices=np.where(there, voices, -1),
        cents=cents_that_add_up(exact, served),
        served=served,
    )


def themes_of(features: Sequence[Feature]) -> tuple[tuple[str, ...], IntArray]:
    """The themes (T,) in the order of the features, and each feature's (F,)."""
    themes = tuple(dict.fromkeys(feature.theme for feature in features))
    return themes, np.array([themes.index(feature.theme) for feature in features], dtype=np.int64)


def _summed(contributions: FloatArray, of_feature: IntArray) -> FloatArray:
    """The money of each theme, (n, m, T). Each customer's own sums in one order: the same alone and among all."""
    n_themes = int(of_feature.max()) + 1
    sums = [np.ascontiguousarray(contributions[..., of_feature == theme]).sum(axis=2) for theme in range(n_themes)]
    return np.stack(sums, axis=2)


def _loudest(contributions: FloatArray, by_theme: FloatArray, of_feature: IntArray) -> IntArray:
    """Of each theme the feature that contributed most in the theme's direction, (n, m, T)."""
    loudest = np.empty(by_theme.shape, dtype=np.int64)
    for theme in range(by_theme.shape[2]):
        members = np.flatnonzero(of_feature == theme)
        direction = np.sign(by_theme[..., theme, None])
        loudest[..., theme] = members[np.argmax(contributions[..., members] * direction, axis=2)]
    return loudest


def _strongest(by_theme: FloatArray, top: int) -> IntArray:
    """The themes worth telling, the strongest first, -1 behind the last: `top`, more until EXPLAINED_SHARE is reached."""
    order = np.argsort(-np.abs(by_theme), axis=2, kind="stable")
    strength = np.take_along_axis(np.abs(by_theme), order, axis=2)
    reached = np.cumsum(strength, axis=2)
    before = reached - strength  # explained by those that stand in front
    needed = (before < EXPLAINED_SHARE * reached[..., -1:]) | (np.arange(by_theme.shape[2]) < top)
    told = needed & (strength >= 0.5 / CENTS)
    most = int(told.sum(axis=2).max(initial=0))
    return np.where(told, order, -1)[..., :most]
