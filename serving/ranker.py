"""A release's ranker, as serving holds it."""

import logging
from typing import TYPE_CHECKING, Literal

import numpy as np

from nearline import bundle
from nearline.ranking import COLUMNS
from nearline.releases import Release

if TYPE_CHECKING:
    import lightgbm

log = logging.getLogger(__name__)

Use = Literal["auto", "on", "off"]
"""NEARLINE_RANKER: where the ranker won, always where there is one, never."""


class Ranker:
    """A release's ranker in memory. Safe to use from many threads."""

    def __init__(self, trees: "lightgbm.Booster") -> None:
        self._trees = trees

    @classmethod
    def of(cls, release: Release, use: Use) -> "Ranker | None":
        """The ranker of a release; None where it has none, or none that is to be used."""
        verdict = release.manifest.ranking
        there = bundle.RANKER in release.manifest.files
        if use == "off" or not there or not (use == "on" or (verdict and verdict.wins)):
            return None
        try:
            import lightgbm
        except (ImportError, OSError) as error:  # its library asks for the system's libgomp
            log.warning("lists are not ranked: LightGBM cannot be loaded (%s)", error)
            return None
        trees = lightgbm.Booster(model_file=release.path / bundle.RANKER)
        if tuple(trees.feature_name()) != COLUMNS:
            log.warning("lists are not ranked: %s reads other columns", release.version)
            return None
        return cls(trees)

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """A score for each row of COLUMNS, float64 (rows,): the higher, the sooner."""
        return np.asarray(self._trees.predict(rows, num_threads=1))
