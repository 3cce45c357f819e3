"""What can go wrong, as one tree.

NearlineError
├── ConfigError            a setting or domain file is wrong
├── BadInput               a file, an argument or an event is not what it must be
├── MissingPartition       an hour that is needed has not been closed or computed
├── StepFailed             a step of the ring (Spark, dbt, Feast, Airflow) did not finish
├── NotReady               there is nothing to answer from yet (no active release, no API)
├── NotKept                the disk did not keep what came in (it is full, or failed)
└── ReleaseError
    ├── UnknownRelease     no such version in the store
    ├── CorruptRelease     a file is missing or its checksum differs
    └── ReleaseRefused     the pointer may not move (failed gate)
        └── Overtaken      another release went live meanwhile

Every message says what was wrong, with which value, and what to do.
"""


class NearlineError(Exception):
    """Root of all errors raised on purpose."""


class ConfigError(NearlineError):
    """A setting or domain file is wrong."""


class BadInput(NearlineError):
    """A file, an argument or an event is not what it must be."""


class MissingPartition(NearlineError):
    """An hour that is needed has not been closed or computed."""


class StepFailed(NearlineError):
    """A step of the ring did not finish."""


class NotReady(NearlineError):
    """There is nothing to answer from yet."""


class NotKept(NearlineError):
    """The disk did not keep what came in."""


class ReleaseError(NearlineError):
    """Something is wrong with a release."""


class UnknownRelease(ReleaseError):
    """No such version in the store."""


class CorruptRelease(ReleaseError):
    """A file of a release is missing or its checksum differs."""


class ReleaseRefused(ReleaseError):
    """The active pointer may not move to this release."""


class Overtaken(ReleaseRefused):
    """Another release went live since this one was begun."""
