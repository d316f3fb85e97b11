"""Keeps what a peer answered, by the content of everything that it depends on, so that nobody is asked twice."""

import os
import tempfile
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from benchmarks.peers import Peer, Question
from benchmarks.scores import Answer


@dataclass(frozen=True)
class KeptAnswer:
    """An answer and the seconds that it took when it was made."""

    answer: Answer
    seconds: float


def ask(peer: Peer, question: Question, fingerprint: str, work: Path) -> KeptAnswer:
    """The peer's answer, from `work` when this peer, these packages and these purchases were there before."""
    key = sha256(f"{fingerprint} {peer.fingerprint}".encode()).hexdigest()[:12]
    file = work / question.day.isoformat() / f"{peer.name}-{key}.npz"
    if file.is_file():
        return _read(file)
    started = time.perf_counter()
    answer = peer.predict(question)
    kept = KeptAnswer(answer, time.perf_counter() - started)
    _check(peer, question, answer)
    _write(file, kept)
    return kept


def _check(peer: Peer, question: Question, answer: Answer) -> None:
    if answer.predicted.shape != (len(question.customer_ids),) or not np.isfinite(answer.predicted).all():
        raise ValueError(
            f"{peer.name} gave shape {answer.predicted.shape} for {len(question.customer_ids)} customers, or numbers that "
            "are not finite; a peer answers every customer with one finite number."
        )


def _read(file: Path) -> KeptAnswer:
    with np.load(file) as arrays:
        probability = arrays.get("probability")
        return KeptAnswer(Answer(arrays["predicted"], probability), float(arrays["seconds"]))


def _write(file: Path, kept: KeptAnswer) -> None:
    arrays = {"predicted": kept.answer.predicted, "seconds": np.array(kept.seconds)}
    if kept.answer.probability is not None:
        arrays["probability"] = kept.answer.probability
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".answer-", delete=False) as staged:
        np.savez_compressed(staged, allow_pickle=False, **arrays)
    os.replace(staged.name, file)
