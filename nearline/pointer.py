"""Which release is active, which were before, and which were rolled back: one file."""

from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from nearline.errors import CorruptRelease
from nearline.replacing import replace_file

_KEPT = 50


class Pointer(BaseModel):
    """What the file says. `history` are the versions that were active before, oldest first.

    `withdrawn` are those that a rollback left: nobody activates them again but another rollback.
    `before` names for these the version that was active before each, so that it can be undone.
    """

    model_config = ConfigDict(frozen=True)

    active: str | None = None
    history: list[str] = Field(default_factory=list)
    withdrawn: list[str] = Field(default_factory=list)
    before: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> "Pointer":
        """The pointer as it is; one to nothing where there is no file.

        Raises CorruptRelease where the file says nothing that can be read.
        """
        if not file.is_file():
            return cls()
        try:
            return cls.model_validate_json(file.read_text())
        except ValueError as error:
            raise CorruptRelease(
                f"{file.name} of the releases is damaged: nobody can tell which one is active. "
                "`nearline releases list` shows those that are there, `nearline releases rollback "
                "VERSION` activates one"
            ) from error

    def write(self, file: Path) -> None:
        """Replace the file by one rename. For one writer at a time."""
        replace_file(file, self.model_dump_json())

    def promoted(self, version: str) -> "Pointer":
        """With another active version; the one before can be gone back to."""
        return self.model_copy(update={"active": version, "history": self._line[-_KEPT:]})

    def rolled_back(self, version: str) -> "Pointer":
        """As it was when `version` was active; all that was active since is withdrawn.

        So a rollback to what an earlier one left undoes that one.
        """
        line = self._line
        history, again = self._led_to(version)
        left = [each for each in line[len(history) - len(again) :] if each != version]
        gone = [each for each in (*self.withdrawn, *left) if each not in (version, *again)]
        withdrawn = list(dict.fromkeys(gone))[-_KEPT:]
        before = self.before | {later: earlier for earlier, later in pairwise(line)}
        return Pointer(
            active=version,
            history=history,
            withdrawn=withdrawn,
            before={each: before[each] for each in withdrawn if each in before},
        )

    @property
    def _line(self) -> list[str]:
        return [*self.history, *([self.active] if self.active else [])]

    def _led_to(self, version: str) -> tuple[list[str], list[str]]:
        """The history of a version, and the end of it that had been withdrawn."""
        line, again, at = self._line, list[str](), version
        while at not in line and self.before.get(at, version) not in (version, *again):
            at = self.before[at]
            again.insert(0, at)
        if at not in line:  # it was never active, or what led to it is gone
            return self.history, []
        kept = line[: line.index(at)]
        return [*kept, *again], again[1:]

    def without(self, versions: Collection[str]) -> "Pointer":
        """Without versions that are there no more."""
        history, withdrawn = (
            [each for each in known if each not in versions]
            for known in (self.history, self.withdrawn)
        )
        before = {
            later: earlier
            for later, earlier in self.before.items()
            if later not in versions and earlier not in versions
        }
        return Pointer(active=self.active, history=history, withdrawn=withdrawn, before=before)
