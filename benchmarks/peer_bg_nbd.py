"""BG/NBD × Gamma-Gamma as `lifetimes` and pymc-marketing have it, and as our own `ml_pipeline.btyd` has it.

From purchases to what the models take: a day with purchases is one transaction; x = purchase days after the first,
t_x = age at the last one, T = age at the day, m = mean value of the x repeat purchases (Fader, Hardie & Lee 2005; Fader &
Hardie 2013). All of them in days. Expected spend of the next 30 days is expected purchases × expected value.
"""

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.peers import Peer, Question
from benchmarks.public_data import HORIZON_DAYS, FloatArray
from benchmarks.scores import Answer
from ml_pipeline import btyd
from ml_pipeline.errors import NoConvergence, UnboundedMean

SOURCES = ("peer_bg_nbd.py",)
PENALTY = 0.001


@dataclass(frozen=True)
class Summary:
    """What the models take of each customer, each (n,): see the module."""

    x: FloatArray
    t_x: FloatArray
    T: FloatArray
    m: FloatArray


def summarise(question: Question) -> Summary:
    """One row per customer, in the order of the question."""
    daily = question.past.groupby(["customer_id", "day"])["amount"].sum().reset_index()
    by_customer = daily.groupby("customer_id")
    first, last = by_customer["day"].min(), by_customer["day"].max()
    x = by_customer.size() - 1
    repeated = by_customer["amount"].sum() - by_customer["amount"].first()
    table = pd.DataFrame(
        {
            "x": x,
            "t_x": (last - first).dt.days,
            "T": (pd.Timestamp(question.day) - first).dt.days,
            "m": (repeated / x).where(x > 0, 0.0),
        }
    ).reindex(question.customer_ids)
    return Summary(*(table[column].to_numpy(np.float64) for column in ("x", "t_x", "T", "m")))


def probability_of_buying(alive: FloatArray, r: float, alpha: float, summary: Summary) -> FloatArray:
    """P(at least one purchase in the next 30 days), (n,).

    A customer who is alive buys at a gamma(r + x, alpha + T) rate until dropping out, which only follows a purchase: the
    first purchase waits for the rate alone.
    """
    waiting = ((alpha + summary.T) / (alpha + summary.T + HORIZON_DAYS)) ** (r + summary.x)
    return alive * (1 - waiting)


def predict_with_lifetimes(question: Question) -> Answer:
    """`lifetimes` with its customary small penalty. Its value model is fitted on who bought again."""
    lifetimes = importlib.import_module("lifetimes")
    summary = summarise(question)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = lifetimes.BetaGeoFitter(penalizer_coef=PENALTY)
        model.fit(summary.x, summary.t_x, summary.T)
        purchases = model.conditional_expected_number_of_purchases_up_to_time(
            HORIZON_DAYS, summary.x, summary.t_x, summary.T
        )
        alive = np.asarray(model.conditional_probability_alive(summary.x, summary.t_x, summary.T), dtype=np.float64)
        again = summary.x > 0
        value = lifetimes.GammaGammaFitter(penalizer_coef=PENALTY)
        value.fit(summary.x[again], summary.m[again])
        worth = value.conditional_expected_average_profit(pd.Series(summary.x), pd.Series(summary.m))
    r, alpha = float(model.params_["r"]), float(model.params_["alpha"])
    return _answer(purchases, worth, probability_of_buying(alive, r, alpha, summary))


def _answer(purchases: Any, worth: Any, probability: FloatArray) -> Answer:
    spend = np.asarray(purchases, dtype=np.float64) * np.asarray(worth, dtype=np.float64)
    return Answer(np.nan_to_num(np.maximum(spend, 0.0)), np.clip(np.nan_to_num(probability), 0.0, 1.0))


def predict_with_own_module(question: Question) -> Answer:
    """`ml_pipeline.btyd`: the same models by our own likelihoods; a small ridge only where there is no maximum without."""
    summary = summarise(question)
    again = summary.x > 0
    history = (summary.x, summary.t_x, summary.T)
    model = _with_ridge_if_needed(btyd.fit_bg_nbd, *history)
    value = _with_ridge_if_needed(btyd.fit_gamma_gamma, summary.x[again], summary.m[again])
    purchases = model.expected_purchases(*history, HORIZON_DAYS)
    alive = model.probability_alive(*history)
    probability = probability_of_buying(alive, model.r, model.alpha, summary)
    return _answer(purchases, value.expected_value(summary.x, summary.m), probability)


def _with_ridge_if_needed(fit: Callable[..., Any], *columns: FloatArray) -> Any:
    try:
        return fit(*columns)
    except (NoConvergence, UnboundedMean):
        return fit(*columns, ridge=PENALTY)


def predict_with_pymc_marketing(question: Question) -> Answer:
    """pymc-marketing, maximum a posteriori with its default priors; full sampling takes hours and tens of gigabytes."""
    clv = importlib.import_module("pymc_marketing.clv")
    summary = summarise(question)
    table = pd.DataFrame(
        {
            "customer_id": question.customer_ids,
            "frequency": summary.x,
            "recency": summary.t_x,
            "T": summary.T,
            "monetary_value": summary.m,
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = clv.BetaGeoModel(data=table)
        model.fit(method="map", progressbar=False)
        value = clv.GammaGammaModel(data=table[table["frequency"] > 0])
        value.fit(method="map", progressbar=False)
        purchases = _means(model.expected_purchases(table, future_t=HORIZON_DAYS))
        alive = _means(model.expected_probability_alive(table))
        worth = _means(value.expected_customer_spend(table))
        found = model.fit_summary()
    r, alpha = (float(found.loc[name] if found.ndim == 1 else found.loc[name, "value"]) for name in ("r", "alpha"))
    return _answer(purchases, worth, probability_of_buying(alive, r, alpha, summary))


def _means(draws: Any) -> FloatArray:
    return np.asarray(draws.mean(("chain", "draw")), dtype=np.float64)


BG_NBD: tuple[Peer, ...] = (
    Peer("lifetimes", "BG/NBD × GG, `lifetimes`", predict_with_lifetimes, ("lifetimes",), SOURCES),
    Peer("btyd", "BG/NBD × GG, our own module", predict_with_own_module, (), (*SOURCES, "../ml_pipeline/btyd.py")),
    Peer("pymc_marketing", "BG/NBD × GG, pymc-marketing", predict_with_pymc_marketing, ("pymc-marketing",), SOURCES),
)
