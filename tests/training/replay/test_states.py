from collections.abc import Callable

import numpy as np
import pyarrow as pa

from training.dataset import NONE
from training.evaluation import encode
from training.learning import reproducible
from training.nightly import new_model
from training.replay.states import (
    compressed_encoder,
    encode_states,
    full_encoder,
    known_states,
)
from training.replay.timeline import Timeline

from .conftest import orderly, timeline, tiny

Events = Callable[[str], pa.Table]
HOUR_US = 3_600_000_000


def test_a_state_knows_what_was_before_its_moment_and_never_the_event_itself(
    events: Events,
) -> None:
    data = timeline(events("u1 a play 0\nu1 b play 10\nu1 c play 20\nu1 d play 20\nu2 a play 5\n"
                           "u2 b play 9000"), from_share=0.9).everything  # fmt: skip
    first = int(data.times.min())
    seconds = np.array([0, 1, 10, 11, 20, 999])
    targets = np.full(6, 3)
    found = known_states(data, targets, first + seconds * 1_000_000)
    # d is asked for: c happened in the same instant, so it stays unknown.
    assert found.tolist() == [NONE, 0, 0, 1, 1, 1]
    assert known_states(data, np.array([0, 4]), np.array([first, first + HOUR_US])).tolist() == [
        NONE,
        NONE,
    ]


def test_live_states_are_those_that_training_sees(world: Timeline) -> None:
    data = world.everything
    with reproducible(0):
        model = new_model(tiny(), world.vocabulary(30), world.catalogue)
    targets = world.targets[data.states[world.targets] != NONE]
    states = data.states[targets]
    apart = encode_states(
        full_encoder(model), data, states, data.times[targets], length=model.config.length
    )
    together = encode(model, model.item_tower().detach(), data, targets)
    np.testing.assert_allclose(apart, together, atol=1e-5)
    small = encode_states(
        compressed_encoder(model), data, states, data.times[targets], length=model.config.length
    )
    assert 0.95 < (apart * small).sum(axis=1).mean() < 1


def test_an_old_state_does_not_know_when_the_user_comes_back(events: Events) -> None:
    worlds = [timeline(events(rows)) for rows in (orderly(), orderly().replace("u00", "u99"))]
    with reproducible(0):
        model = new_model(tiny(), worlds[0].vocabulary(30), worlds[0].catalogue)
    for when in (HOUR_US, 50 * HOUR_US):
        data = worlds[0].everything
        moments = np.array([data.times[0] + when])
        (vector,) = encode_states(full_encoder(model), data, np.array([0]), moments, length=8)
        cut = worlds[0].seen(before=int(data.times[0]) + 1, items=30).data
        place = np.flatnonzero(cut.users == data.users[0])
        (again,) = encode_states(full_encoder(model), cut, place, moments, length=8)
        np.testing.assert_allclose(vector, again, atol=1e-6)
