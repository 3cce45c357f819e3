"""What came out of a replay: figures with intervals, curves by age, the frontier, the advice."""

from typing import Any

import numpy as np

from nearline.sequence import at_microseconds
from training.evaluation import TOP, Evaluation, interval
from training.replay.ages import by_age, groups
from training.replay.clocks import BASELINES, encoded_at
from training.replay.run import Played
from training.replay.tasks import Outcome
from training.replay.timeline import Timeline

PROTOCOL = (
    "Each positive event on an item that is new to its user, from the start on, is ranked before "
    "it is learned, among all items known at the last tick of the model's clock; what the user had "
    "touched before this instant is left out. An item that is not known yet is a miss. A user of "
    "whom nothing is known gets the popular. Intervals (95 %) are bootstrapped over users. "
    "compute_seconds are CPU seconds of learning and of encoding users after the first night. "
    "Policies are compared on the first events, those that all of them have foreseen (compared); "
    "those that foresaw too few of them are left out (left_out)."
)


def report(played: Played, *, seed: int) -> dict[str, Any]:
    """All figures of a replay, as JSON has them; null where nothing was foreseen.

    What was cut short is told in `cut`, what was not compared in `left_out`.
    """
    judge, night = Judge(played, seed), played.night
    told = {
        "data": facts(played.timeline),
        "protocol": PROTOCOL,
        "seed": seed,
        "night_seconds": round(night.seconds, 2) if night else 0.0,
        "night_passes": night.passes if night else 0.0,
        "night_cut": night is not None and night.cut,
        "policies": [judge.row(o) for o in played.outcomes],
        "compared": judge.compared(),
        "left_out": judge.left_out(),
        "forgetting": forgetting(played, seed),
        "cut": [o.policy.name for o in played.outcomes if not judge.complete(o)],
    }
    if played.compared:
        told["frontier"] = [o.policy.name for o in judge.frontier()]
    if judge.judged:
        told["recommended"] = judge.advice()
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
    """Figures of outcomes: each on its own events, and the compared ones on the same."""

    def __init__(self, played: Played, seed: int) -> None:
        self.timeline, self.outcomes, self.seed = played.timeline, played.outcomes, seed
        self.shared = {o.policy.name: o for o in played.compared}
        self.clocks = [o for o in played.compared if o.policy.name not in BASELINES]
        self.users = self.timeline.everything.users[self.timeline.targets]
        self.times = self.timeline.everything.times[self.timeline.targets]
        self.groups = groups(self.timeline)
        self.judged = [o for o in self.clocks if not self.idle(o)]

    def complete(self, outcome: Outcome) -> bool:
        """Whether an outcome reaches the end."""
        return len(outcome.ranks) == len(self.users)

    def compared(self) -> dict[str, Any]:
        """How many events were compared, and when the last one was."""
        count = min((len(o.ranks) for o in self.shared.values()), default=0)
        until = _iso(int(self.times[count - 1])) if count else None
        return {"events": count, "until": until, "policies": list(self.shared)}

    def idle(self, outcome: Outcome) -> bool:
        """Whether a clock has not ticked yet in what is compared: nothing can be said of it."""
        ages = self.times[: len(outcome.ranks)] - self.timeline.start
        return outcome.policy.clock.name != "never" and bool((outcome.model_ages >= ages).all())

    def left_out(self) -> list[dict[str, Any]]:
        """The policies that were not compared, and how far they got."""
        return [
            {"name": o.policy.name, "events": len(o.ranks)}
            for o in self.outcomes
            if o.policy.name not in self.shared
        ]

    def ndcg(self, outcome: Outcome) -> np.ndarray:
        """NDCG@10 of each of its events."""
        return Evaluation(outcome.ranks, self.users[: len(outcome.ranks)], np.zeros(0, bool)).ndcg

    def row(self, outcome: Outcome) -> dict[str, Any]:
        """One policy's figures: on all that it foresaw, then on what is compared."""
        policy, count = outcome.policy, len(outcome.ranks)
        shared = self.shared.get(policy.name)
        aging = shared or outcome
        return {
            "name": policy.name,
            "state": policy.state,
            "model": policy.clock.name,
            "encoder": policy.encoder if policy.name not in BASELINES else None,
            **self.part(outcome, np.full(count, True)),
            "compute_seconds": round(outcome.seconds, 2),
            "learning_seconds": round(outcome.learning, 2),
            "answering_seconds": round(outcome.answering, 2),
            "shared": self.on_the_same(shared) if shared else None,
            "difference": self.against_cheapest(shared) if shared else None,
            "groups": {
                name: self.part(outcome, there[:count]) for name, there in self.groups.items()
            },
            "by_state_age": self.curve(aging, self.state_ages(aging), self.with_live(aging)),
            "by_model_age": self.curve(aging, aging.model_ages, self.with_newest(aging)),
        }

    def on_the_same(self, shared: Outcome) -> dict[str, Any]:
        """A policy's figures on the events that are compared."""
        there = np.full(len(shared.ranks), True)
        return self.part(shared, there) | {"compute_seconds": round(shared.seconds, 2)}

    def interval(self, values: np.ndarray, there: np.ndarray | slice = slice(None)) -> list[float]:
        """The 95 % interval of the mean over the first events, or some of them (bool)."""
        users = self.users[: len(values)]
        low, high = interval(values[there], users[there], seed=self.seed)
        return [round(low, 6), round(high, 6)]

    def against_cheapest(self, shared: Outcome) -> dict[str, Any]:
        """What a compared policy has over the cheapest clocks, or baseline where there are none."""
        return self.difference(shared, min(self.clocks or self.shared.values(), key=_cost))

    def difference(self, outcome: Outcome, other: Outcome) -> dict[str, Any]:
        """How much better a compared outcome is than another one, and what noise it has."""
        apart = self.ndcg(outcome) - self.ndcg(other)
        return {"to": other.policy.name, "ndcg@10": _mean(apart), "interval": self.interval(apart)}

    def part(self, outcome: Outcome, there: np.ndarray) -> dict[str, Any]:
        """The figures of some (bool) of an outcome's first events, with their intervals."""
        count = len(there)
        if not there.any():
            return {"events": 0} | dict.fromkeys(_FIGURES)
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
        """Figures by age, and NDCG of the freshest policy of the same kind on the same events.

        `behind` is the interval of what it has less or more than that one, in pairs.
        """
        both = min(len(outcome.ranks), len(fresh.ranks))
        best = self.ndcg(fresh)[:both]
        apart = self.ndcg(outcome)[:both] - best
        return [
            {
                "age": age,
                **self.part(outcome, there),
                "freshest": _mean(best[there]),
                "behind": self.interval(apart, there),
            }
            for age, there in by_age(ages[:both])
        ]

    def with_live(self, outcome: Outcome) -> Outcome:
        """The policy of the same model and encoder whose state is live; itself without one."""
        policy = outcome.policy
        return next(
            (
                other
                for other in self.shared.values()
                if other.policy.state == "live"
                and (other.policy.clock, other.policy.encoder) == (policy.clock, policy.encoder)
            ),
            outcome,
        )

    def with_newest(self, outcome: Outcome) -> Outcome:
        """The compared policy of the same state and encoder whose model is the youngest."""
        policy = outcome.policy
        alike = [
            other
            for other in self.clocks
            if (other.policy.state, other.policy.encoder) == (policy.state, policy.encoder)
        ]
        if policy.name in BASELINES or not alike:
            return outcome
        return min(alike, key=lambda other: float(other.model_ages.mean()))

    def frontier(self) -> list[Outcome]:
        """Those that nothing cheaper is as good as, the cheapest first."""
        best = -1.0
        found: list[Outcome] = []
        for outcome in sorted(self.shared.values(), key=_cost):
            gain = self.gain(outcome)
            if gain > best:
                best, found = gain, [*found, outcome]
        return found

    def gain(self, outcome: Outcome) -> float:
        """Mean NDCG@10."""
        return float(self.ndcg(outcome).mean())

    def advice(self) -> dict[str, Any]:
        """The cheapest clocks that cannot be told from the best ones, and why.

        A baseline is no clock to pay for: the best one is told beside them.
        """
        best = max(self.judged, key=self.gain)
        enough = next(
            o
            for o in sorted(self.judged, key=_cost)
            if o is best or self.difference(best, o)["interval"][0] <= 0
        )
        rivals = [o for o in self.shared.values() if o.policy.name in BASELINES]
        rival = max(rivals, key=self.gain, default=None)
        told: dict[str, Any] = {
            "policy": enough.policy.name,
            "best": best.policy.name,
            "why": f"{enough.policy.name}: {self._why(enough, best)}",
        }
        if idle := [o.policy.name for o in self.clocks if self.idle(o)]:
            told["why"] += f"; nothing can be said of {', '.join(idle)}, which learned nothing yet"
        if rival is not None:
            edge = self.difference(rival, enough)
            told["baseline"] = {"name": rival.policy.name, **edge}
            if edge["interval"][1] >= 0:
                told["why"] += f"; {_rivalry(rival.policy.name, edge)}"
        return told

    def _why(self, enough: Outcome, best: Outcome) -> str:
        if len(self.judged) == 1:
            return "no other clocks were compared"
        if enough is best:
            return "better than everything cheaper, beyond noise"
        short = self.difference(best, enough)["ndcg@10"]
        return (
            f"the best, {best.policy.name}, is {short:+.4f} NDCG@10 from it, which is within "
            "noise, and costs more"
        )


_FIGURES = ("ndcg@10", "interval", "recall@10", "recall_interval")


def _rivalry(name: str, edge: dict[str, Any]) -> str:
    """What a baseline has over the advised clocks."""
    low, high = edge["interval"]
    said = "is better than it" if low > 0 else "cannot be told from it"
    return f"{name}, without any model, {said} ({edge['ndcg@10']:+.4f}, {low:+.4f} to {high:+.4f})"


def _cost(outcome: Outcome) -> float:
    return outcome.seconds


def _mean(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 6) if len(values) else None


def _iso(moment: int) -> str:
    return at_microseconds(moment).isoformat(timespec="seconds")
