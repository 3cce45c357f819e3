"""What came out of a replay: figures with intervals, curves by age, the frontier, the advice."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nearline.sequence import at_microseconds
from training.evaluation import TOP, Evaluation, interval
from training.replay.ages import by_age, groups
from training.replay.clocks import BASELINES, encoded_at
from training.replay.run import Outcome, Played
from training.replay.timeline import Timeline

PROTOCOL = (
    "Each positive event on an item that is new to its user, from the start on, is ranked before "
    "it is learned, among all items known at the last tick of the model's clock; what the user had "
    "touched before this instant is left out. An item that is not known yet is a miss. A user of "
    "whom nothing is known gets the popular. Intervals (95 %) are bootstrapped over users. "
    "compute_seconds are CPU seconds of learning and of encoding users after the first night."
)


def report(played: Played, *, seed: int) -> dict[str, Any]:
    """All figures of a replay, as JSON has them. What was cut short is told in `cut`."""
    judge = Judge(played, seed)
    whole = [o for o in played.outcomes if judge.complete(o)]
    told = {
        "data": facts(played.timeline),
        "protocol": PROTOCOL,
        "seed": seed,
        "night_seconds": round(played.night.seconds, 2) if played.night else 0.0,
        "night_cut": played.night is not None and played.night.cut,
        "policies": [judge.row(o) for o in played.outcomes],
        "forgetting": forgetting(played, seed),
        "cut": [o.policy.name for o in played.outcomes if not judge.complete(o)],
    }
    if whole:
        told["frontier"] = [o.policy.name for o in judge.frontier(whole)]
        told["recommended"] = judge.advice(whole)
    return told


def facts(timeline: Timeline) -> dict[str, Any]:
    """What was replayed."""
    data, targets = timeline.everything, timeline.targets
    return {
        "events": len(data),
        "users": len(np.unique(data.users)),
        "items": len(timeline.known_since),
        "start": _iso(timeline.start),
        "end": _iso(timeline.end),
        "replayed": len(targets),
        "replayed_users": len(np.unique(data.users[targets])),
        "replayed_of": {name: int(there.sum()) for name, there in groups(timeline).items()},
    }


def forgetting(played: Played, seed: int) -> list[dict[str, Any]]:
    """What each model still foresees of the time before the replay, against the first night's."""
    if not played.memory:
        return []
    before = played.memory["never"]
    return [
        {
            "model": name,
            "events": len(after.ranks),
            "ndcg@10": _mean(after.ndcg),
            "first_night": _mean(before.ndcg),
            "difference": [
                round(edge, 6)
                for edge in interval(after.ndcg - before.ndcg, after.users, seed=seed)
            ],
        }
        for name, after in played.memory.items()
        if name != "never"
    ]


class Judge:
    """Figures of outcomes, on the events that they have in common."""

    def __init__(self, played: Played, seed: int) -> None:
        self.timeline, self.outcomes, self.seed = played.timeline, played.outcomes, seed
        self.users = self.timeline.everything.users[self.timeline.targets]
        self.times = self.timeline.everything.times[self.timeline.targets]
        self.groups = groups(self.timeline)
        models = [o for o in self.outcomes if o.policy.name not in BASELINES]
        played_most = [o for o in models or self.outcomes if self.complete(o)]
        self.cheapest = min(played_most or self.outcomes, key=lambda o: o.seconds)

    def complete(self, outcome: Outcome) -> bool:
        """Whether an outcome reaches the end."""
        return len(outcome.ranks) == len(self.users)

    def ndcg(self, outcome: Outcome) -> np.ndarray:
        """NDCG@10 of each of its events."""
        return Evaluation(outcome.ranks, self.users[: len(outcome.ranks)], np.zeros(0, bool)).ndcg

    def row(self, outcome: Outcome) -> dict[str, Any]:
        """One policy's figures."""
        policy, count = outcome.policy, len(outcome.ranks)
        return {
            "name": policy.name,
            "state": policy.state,
            "model": policy.clock.name,
            "encoder": policy.encoder if policy.name not in BASELINES else None,
            **self.part(outcome, np.full(count, True)),
            "compute_seconds": round(outcome.seconds, 2),
            "learning_seconds": round(outcome.learning, 2),
            "answering_seconds": round(outcome.answering, 2),
            "difference": self.difference(outcome, self.cheapest),
            "groups": {
                name: self.part(outcome, there[:count]) for name, there in self.groups.items()
            },
            "by_state_age": self.curve(outcome, self.state_ages(outcome), self.with_live(outcome)),
            "by_model_age": self.curve(outcome, outcome.model_ages, self.with_newest(outcome)),
        }

    def interval(self, values: np.ndarray, there: np.ndarray | slice = slice(None)) -> list[float]:
        """The 95 % interval of the mean over the first events, or some of them (bool)."""
        users = self.users[: len(values)]
        low, high = interval(values[there], users[there], seed=self.seed)
        return [round(low, 6), round(high, 6)]

    def difference(self, outcome: Outcome, other: Outcome) -> dict[str, Any]:
        """How much better an outcome is than another one, on the events that both foresaw."""
        one, two = self.ndcg(outcome), self.ndcg(other)
        both = min(len(one), len(two))
        apart = one[:both] - two[:both]
        return {"to": other.policy.name, "ndcg@10": _mean(apart), "interval": self.interval(apart)}

    def part(self, outcome: Outcome, there: np.ndarray) -> dict[str, Any]:
        """The figures of some (bool) of an outcome's first events, with their intervals."""
        count = len(there)
        gain, hits = self.ndcg(outcome)[:count], (outcome.ranks[:count] < TOP).astype(float)
        return {
            "events": int(there.sum()),
            "ndcg@10": _mean(gain[there]),
            "interval": self.interval(gain, there),
            "recall@10": _mean(hits[there]),
            "recall_interval": self.interval(hits, there),
        }

    def state_ages(self, outcome: Outcome) -> np.ndarray:
        """How old the user's state was at each event (microseconds)."""
        times = self.times[: len(outcome.ranks)]
        return times - encoded_at(outcome.policy.state, times, self.timeline.start)

    def curve(self, outcome: Outcome, ages: np.ndarray, fresh: Outcome) -> list[dict[str, Any]]:
        """Figures by age, and NDCG of the freshest policy of the same kind on the same events."""
        both = min(len(outcome.ranks), len(fresh.ranks))
        best = self.ndcg(fresh)[:both]
        return [
            {"age": age, **self.part(outcome, there), "freshest": _mean(best[there])}
            for age, there in by_age(ages[:both])
        ]

    def with_live(self, outcome: Outcome) -> Outcome:
        """The policy of the same model and encoder whose state is live; itself without one."""
        policy = outcome.policy
        return next(
            (
                other
                for other in self.outcomes
                if other.policy.state == "live"
                and (other.policy.clock, other.policy.encoder) == (policy.clock, policy.encoder)
            ),
            outcome,
        )

    def with_newest(self, outcome: Outcome) -> Outcome:
        """The policy of the same state and encoder whose model is the youngest, at full length."""
        policy = outcome.policy
        alike = [
            other
            for other in self.outcomes
            if (other.policy.state, other.policy.encoder) == (policy.state, policy.encoder)
            and other.policy.name not in BASELINES
            and self.complete(other)
        ]
        if policy.name in BASELINES or not alike:
            return outcome
        return min(alike, key=lambda other: float(other.model_ages.mean()))

    def frontier(self, whole: Sequence[Outcome]) -> list[Outcome]:
        """Those that nothing cheaper is as good as, the cheapest first."""
        best = -1.0
        found: list[Outcome] = []
        for outcome in sorted(whole, key=lambda o: o.seconds):
            gain = float(self.ndcg(outcome).mean())
            if gain > best:
                best, found = gain, [*found, outcome]
        return found

    def advice(self, whole: Sequence[Outcome]) -> dict[str, Any]:
        """The cheapest policy that cannot be told from the best one, and why."""
        best = max(whole, key=lambda o: float(self.ndcg(o).mean()))
        enough = next(
            o
            for o in sorted(whole, key=lambda o: o.seconds)
            if o is best or self.difference(best, o)["interval"][0] <= 0
        )
        short = self.difference(best, enough)
        said = f"{enough.policy.name}: "
        if enough is best:
            said += "better than everything cheaper, beyond noise"
        else:
            said += (
                f"the best, {best.policy.name}, is {short['ndcg@10']:+.4f} NDCG@10 from it, which "
                "is within noise, and costs more"
            )
        return {"policy": enough.policy.name, "best": best.policy.name, "why": said}


def _mean(values: np.ndarray) -> float:
    return round(float(values.mean()), 6) if len(values) else 0.0


def _iso(moment: int) -> str:
    return at_microseconds(moment).isoformat(timespec="seconds")
