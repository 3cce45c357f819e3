"""The gate: whether a release may go live, with reasons that a person can read.

Each check gives one sentence, whether it passed or not; a release passes when all of them do. A
difference counts when it is beyond noise: when its 95 % bootstrap interval over users leaves out 0.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nearline import bundle as names
from nearline.encoder import UserEncoder
from nearline.sequence import GAP_BUCKETS, HOURS, PAD, VALUE_BUCKETS, ModelInput
from training.bundle import ServedEncoder
from training.evaluation import TOP, Evaluation, interval
from training.model import Model

ENOUGH_USERS = 30
ENOUGH_EVENTS = 100
"""With fewer in the held-out slice, nobody can ask that a baseline be beaten beyond noise."""

LEAST_USERS = 10
"""With fewer, drawing them anew tells nothing of the noise: not even that a release is worse."""

KEPT_COVERAGE = 0.5
"""Of the items that a champion's lists show, so many may not be lost: a release that shows the same
few items to everybody loses nearly all, and nights differ by some."""

_UNIT_TOLERANCE = 1e-3
_ONNX_TOLERANCE = 1e-3
_COMPRESSED_COSINE = 0.95
_TIMED = 20


@dataclass(frozen=True)
class Check:
    """One question that was asked of a release, and the answer as a sentence."""

    passed: bool
    reason: str


@dataclass(frozen=True)
class Verdict:
    """Whether the release may go live, and why or why not."""

    promoted: bool
    reasons: list[str]


def judge(checks: Iterable[Check]) -> Verdict:
    """All checks must pass; the reasons of those that failed come first."""
    found = sorted(checks, key=lambda check: check.passed)
    return Verdict(all(check.passed for check in found), [check.reason for check in found])


def answers(folder: Path, model: Model) -> list[Check]:
    """The staged folder, opened as serving does it: finite, of length 1, and the model's own."""
    matrix = np.load(folder / names.ITEM_MATRIX)
    checks = [_unit(matrix, f"the {len(matrix)} item vectors")]
    sample = made_up_users(model)
    with torch.no_grad():
        expected = ServedEncoder(model.eval())(*map(torch.from_numpy, sample)).numpy()
    full = UserEncoder.open(folder)(sample)
    small = UserEncoder.open(folder, names.ENCODER_COMPRESSED)(sample)
    checks.append(_unit(full, "the user vectors of the encoder"))
    apart = float(np.abs(full - expected).max())
    checks.append(
        Check(
            apart <= _ONNX_TOLERANCE,
            f"the exported encoder is {apart:.1e} apart from the model (at most {_ONNX_TOLERANCE})",
        )
    )
    cosine = float((full * small).sum(axis=1).mean())
    checks.append(
        Check(
            cosine >= _COMPRESSED_COSINE,
            f"the compressed encoder keeps a cosine of {cosine:.3f} to the full one "
            f"(at least {_COMPRESSED_COSINE})",
        )
    )
    return checks


def quick(folder: Path, model: Model, *, file: str, budget_ms: float) -> Check:
    """The staged encoder must encode one user, of as many events as it reads, within a budget.

    The median of some calls on one core: what a request waits for at the least.
    """
    encoder = UserEncoder.open(folder, file)
    inputs = ModelInput(*(column[-1:] for column in made_up_users(model, users=2)))
    took = []
    for _ in range(_TIMED):
        began = time.perf_counter()
        encoder(inputs)
        took.append(1000 * (time.perf_counter() - began))
    ms = float(np.median(took))
    return Check(
        ms <= budget_ms,
        f"{file} takes {ms:.1f} ms for a user of {model.config.length} events "
        f"(at most {budget_ms:g})",
    )


def made_up_users(model: Model, *, users: int = 16) -> ModelInput:
    """Made-up users with histories of every length up to the longest, padded."""
    config, rng = model.config, np.random.default_rng(0)
    lengths = np.linspace(1, config.length, users).astype(int)
    inside = np.arange(config.length) < lengths[:, None]
    tops = (config.items, config.types, GAP_BUCKETS, VALUE_BUCKETS, HOURS)
    columns = (rng.integers(1, top + 1, inside.shape) for top in tops)
    return ModelInput(*(np.where(inside, column, PAD) for column in columns))


def _unit(vectors: np.ndarray, what: str) -> Check:
    bad = int((~np.isfinite(vectors)).any(axis=1).sum())
    if bad:
        return Check(False, f"{bad} of {what} are not finite numbers")
    off = float(np.abs(np.linalg.norm(vectors, axis=1) - 1).max())
    if off > _UNIT_TOLERANCE:
        return Check(False, f"{what} are not of length 1: the farthest is {off:.3f} away")
    return Check(True, f"{what} are finite and of length 1")


def enough(found: Evaluation) -> bool:
    """Whether there are events and users enough to tell two methods from one another."""
    return len(found.ranks) >= ENOUGH_EVENTS and len(np.unique(found.users)) >= ENOUGH_USERS


def _tells(found: Evaluation) -> bool:
    """Whether there are users enough that an interval tells of the noise at all."""
    return len(np.unique(found.users)) >= LEAST_USERS


def beats_baselines(
    found: Evaluation, baselines: Mapping[str, Evaluation], *, fresher: bool, seed: int
) -> Check:
    """The best baseline must be beaten beyond noise on the same events.

    A release that knows newer events than the active one (`fresher`) only must not be worse beyond
    noise: what is live would grow old instead. A slice that is too small to tell refuses nothing.
    """
    if len(found.ranks) == 0:
        return Check(True, "no held-out event could be foreseen: baselines were not compared")
    best = max(baselines, key=lambda name: baselines[name].ndcg.mean())
    low, high = _difference(found, baselines[best], seed)
    told = _told(found, baselines[best], f"the best baseline, {best}", low, high)
    users = len(np.unique(found.users))
    if low > 0:
        return Check(True, f"better than {told}")
    if high < 0 and _tells(found):
        return Check(False, f"worse than {told}")
    if not enough(found):
        return Check(True, f"{users} users with too few events to tell it from {told}")
    if fresher:
        return Check(True, f"not to be told from {told}; nothing that is live is as fresh")
    return Check(False, f"not better beyond noise than {told}")


def keeps_up(
    found: Evaluation,
    champion: Evaluation,
    *,
    version: str,
    tolerance: float,
    fresher: bool,
    seed: int,
) -> Check:
    """On the same events, new to both: a fresher release must not be worse by more than
    `tolerance`, one that knows nothing newer must be better beyond noise.

    One that answers all of them alike is the same model again.
    """
    whom = f"the active release {version}"
    if fresher or len(found.ranks) == 0 or (found.ranks == champion.ranks).all():
        return _not_worse(found, champion, whom, tolerance, seed)
    low, high = _difference(found, champion, seed)
    told = _told(found, champion, whom, low, high)
    if low > 0:
        return Check(True, f"better than {told}")
    return Check(False, f"not better beyond noise than {told}, and it knows nothing newer")


def keeps_segments(
    found: Evaluation, champion: Evaluation, *, version: str, tolerance: float, seed: int
) -> Check:
    """No part of users or items may lose more than `tolerance`, beyond noise, for others' gain.

    Parts with too few events to tell are left out.
    """
    checks = [
        _not_worse(found.only(part), champion.only(part), f"{version} for {name}", tolerance, seed)
        for name, part in found.segments.items()
        if enough(found.only(part))
    ]
    for check in checks:
        if not check.passed:
            return check
    told = f"not worse beyond noise for any of {len(checks)} parts of users and items"
    return Check(True, told)


def remembers(
    found: Evaluation, other: Evaluation, *, whom: str, tolerance: float, seed: int
) -> Check:
    """A fine-tune must still foresee what came before its hours about as `other` does."""
    return _not_worse(found, other, f"{whom} on earlier events", tolerance, seed)


def _not_worse(
    found: Evaluation, other: Evaluation, whom: str, tolerance: float, seed: int
) -> Check:
    if len(found.ranks) == 0:
        return Check(True, f"no events to compare it with {whom}")
    low, high = _difference(found, other, seed)
    told = _told(found, other, whom, low, high)
    lost = found.ndcg.mean() < other.ndcg.mean() * (1 - tolerance)
    if lost and high < 0 and _tells(found):
        return Check(False, f"more than {tolerance:.0%} worse than {told}")
    return Check(True, f"not more than {tolerance:.0%} worse beyond noise than {told}")


def covers(found: Evaluation, *, floor: float) -> Check:
    """The lists must show more than a few items: a share of those that they had room for."""
    if len(found.ranks) == 0:
        return Check(True, "no lists were made to measure coverage on")
    room = min(len(found.shown), TOP * len(found.ranks))
    share = float(found.shown.sum()) / room
    return Check(share >= floor, f"its lists show {share:.1%} of the items (at least {floor:.1%})")


def keeps_coverage(found: Evaluation, *, shown: float, events: float, whom: str) -> Check:
    """The lists must show at least KEPT_COVERAGE of the items that those of another showed.

    That showed `shown` items over `events` events. Who was asked for far fewer shows fewer: then
    it is not compared.
    """
    if not shown or len(found.ranks) < KEPT_COVERAGE * events:
        return Check(True, f"asked for too few events to compare the items it shows with {whom}")
    own = int(found.shown.sum())
    told = f"its lists show {own} items, those of {whom} {shown:.0f} (at least {KEPT_COVERAGE:.0%})"
    return Check(own >= KEPT_COVERAGE * shown, told)


def _difference(found: Evaluation, other: Evaluation, seed: int) -> tuple[float, float]:
    return interval(found.ndcg - other.ndcg, found.users, seed=seed)


def _told(found: Evaluation, other: Evaluation, whom: str, low: float, high: float) -> str:
    return (
        f"{whom}: NDCG@10 {found.ndcg.mean():.4f} against {other.ndcg.mean():.4f} on "
        f"{len(found.ranks)} events (difference {low:+.4f} to {high:+.4f})"
    )
