"""What a rule says when it is broken."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Finding:
    """One broken rule at one line."""

    file: str  # from the project's root
    line: int  # from 1; 1 where the whole file is meant
    rule: str  # "group/name"
    message: str  # what is so
    mend: str  # what to do

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.message}; {self.mend}"
