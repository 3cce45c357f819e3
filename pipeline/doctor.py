"""What this machine has of what Nearline needs, and what to do where it lacks."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from nearline.domains import load_domain
from nearline.errors import NearlineError
from nearline.redis_client import open_redis
from nearline.settings import settings

_PYTHON = (3, 11)
_JAVA = 17
_FREE_GIB = 2
_PACKAGES = ("pyspark", "duckdb", "feast", "torch", "onnxruntime", "airflow", "fastapi")


@dataclass(frozen=True)
class Finding:
    """One check: `detail` is what was found or, when not `ok`, what to do."""

    check: str
    ok: bool
    detail: str


def examine() -> list[Finding]:
    """Run every check. A check that fails is a finding, never an exception."""
    checks = [_python, _java, _packages, _disk, _domain]
    if settings().online_store == "redis":
        checks.append(_redis)
    return [_run(check) for check in checks]


def _run(check: Callable[[], str]) -> Finding:
    name = check.__name__.lstrip("_")
    try:
        return Finding(name, True, check())
    except (NearlineError, OSError) as error:
        return Finding(name, False, str(error))


def _python() -> str:
    if sys.version_info[:2] != _PYTHON:
        raise NearlineError(f"Python {sys.version.split()[0]} runs: install Python 3.11")
    return sys.version.split()[0]


def _java() -> str:
    java = shutil.which("java")
    if java is None:
        raise NearlineError("Java is missing: install a Java 17 runtime (Spark needs it)")
    told = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
    version = told.split('"')[1] if '"' in told else "unknown"
    if not version.startswith(f"{_JAVA}."):
        raise NearlineError(f"Java {version} runs: Spark is tested on Java 17, set JAVA_HOME to it")
    return version


def _packages() -> str:
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise NearlineError(f"not installed: {', '.join(missing)}; run `make install`")
    return f"{len(_PACKAGES)} found"


def _disk() -> str:
    home = settings().home
    folder = next(p for p in (home, *home.parents) if p.exists())
    free = shutil.disk_usage(folder).free / 2**30
    if free < _FREE_GIB:
        raise NearlineError(f"{free:.1f} GiB are free at {folder}: make room, or set NEARLINE_HOME")
    return f"{free:.0f} GiB free at {folder}"


def _domain() -> str:
    return load_domain(settings().domain).name


def _redis() -> str:
    from redis import RedisError

    try:
        open_redis().ping()
    except RedisError as error:
        raise NearlineError(
            f"Redis does not answer at {settings().redis_url} ({error}): start it, or set "
            "NEARLINE_ONLINE_STORE=sqlite"
        ) from error
    return settings().redis_url
