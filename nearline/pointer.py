"""Which release is active, which were before, and which were rolled back: one file."""

from collections.abc import Collection
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from nearline.replacing import replace_file

_KEPT = 50


class Pointer(BaseModel):
    """What the file says. `history` are the versions that were active before, oldest first.

    `withdrawn` are those that a rollback left: nobody activates them again but another rollback.
    """

    model_config = ConfigDict(frozen=True)

    active: str | None = None
    history: list[str] = Field(default_factory=list)
    withdrawn: list[str] = Field(default_factory=list)

    @classmethod
    def read(cls, file: Path) -> "Pointer":
        """The pointer as it is; one to nothing where there is no file."""
        return cls.model_validate_json(file.read_text()) if file.is_file() else cls()

    def write(self, file: Path) -> None:
        """Replace the file by one rename. For one writer at a time."""
        replace_file(file, self.model_dump_json())

    def promoted(self, version: str) -> "Pointer":
        """With another active version; the one before can be gone back to."""
        before = [*self.history, *([self.active] if self.active else [])]
        return Pointer(active=version, history=before[-_KEPT:], withdrawn=self.withdrawn)

    def rolled_back(self, version: str) -> "Pointer":
        """Back at `version`; all that was active since is withdrawn."""
        cut = self.history.index(version) if version in self.history else len(self.history)
        left = [*self.history[cut:], *([self.active] if self.active else [])]
        withdrawn = [each for each in (*self.withdrawn, *left) if each != version]
        return Pointer(
            active=version,
            history=self.history[:cut],
            withdrawn=list(dict.fromkeys(withdrawn))[-_KEPT:],
        )

    def without(self, versions: Collection[str]) -> "Pointer":
        """Without versions that are there no more."""
        history, withdrawn = (
            [each for each in known if each not in versions]
            for known in (self.history, self.withdrawn)
        )
        return Pointer(active=self.active, history=history, withdrawn=withdrawn)
