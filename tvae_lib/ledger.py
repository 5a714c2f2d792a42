"""The verdicts on the documents' claims: chapters declare them here, `book/generate.py` collects them.

Where the documents can be read in more than one way, the readings of `READINGS` are told apart, and a verdict says what
it is under each that it was judged under."""

from dataclasses import dataclass, field
from typing import NamedTuple

DEPENDS = "depends on the reading"
VERDICTS = ("proved", "holds", "holds with a correction", DEPENDS, "refuted", "vacuous", "not testable")
MIME = "application/vnd.tvae.verdict+json"


class Reading(NamedTuple):
    """A place where the documents leave room: what it is about, and how it can be read, the book's base first."""

    about: str
    options: tuple[str, ...]


READINGS = {
    "R1": Reading("the histogram behind H(z)", ("hard", "soft")),
    "R2": Reading("the temperatures", ("as written", "floored at 0.05")),
    "R3": Reading("a trit that counts as covered", ("sampled", "argmax", "rounded")),
    "R4": Reading("the system whose coverage is meant", ("each decoder", "half of the draws each", "union of both")),
    "R5": Reading("decoder B's last residual block", ("no ReLU after it", "a ReLU after it")),
    "R6": Reading("ρ in phase 3 while out of balance", ("holds", "falls back to 0.3", "no gate")),
    "R7": Reading("the ratio of gradient norms", ("B/A", "A/B", "raw norms", "root of raw norms")),
    "R8": Reading("the moving average's α", ("0.95 while balanced", "constant 0.9")),
    "R9": Reading("k in the output entropy", ("values of each trit", "values", "operations")),
    "R10": Reading("the codes whose entropy is meant", ("sampled with τσ", "sampled with σ")),
    "R11": Reading("the codes that repel", ("sampled", "means")),
    "R12": Reading("when StateNet acts", ("once an epoch", "at every step")),
}
Under = dict[str, dict[str, tuple[str, str]]]  # {"R1": {"hard": (verdict, figure), ...}, ...}


@dataclass(frozen=True)
class _Verdict:
    """One verdict with its evidence; shown as a line on the page, read from the stored output by the ledger."""

    claim: str
    verdict: str
    finding: str
    evidence: str
    under: Under = field(default_factory=dict)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {
            "text/markdown": f"**{self.claim} · {self.verdict}.** {self.finding}",
            "text/plain": f"{self.claim} · {self.verdict}. {self.finding}",
            MIME: {key: getattr(self, key) for key in ("claim", "verdict", "finding", "evidence", "under")},
        }


def words_of(under: Under) -> set[str]:
    """The verdicts that the readings give."""
    return {word for options in under.values() for word, _ in options.values()}


def verdict(claim: str, verdict: str, finding: str, evidence: str, under: Under | None = None) -> _Verdict:
    """Declare what a chapter found about a claim, as the last expression of a cell.

    `claim` is an id of book/claims.yml, `verdict` one of `VERDICTS`, `finding` a sentence with the computed numbers,
    `evidence` the label of what carries it in the same chapter, `under` a verdict and a figure for each reading.
    ValueError where one is missing or unknown, or the readings differ and the verdict does not say that it depends."""
    under = under or {}
    if verdict not in VERDICTS:
        raise ValueError(f"verdict of {claim} is {verdict!r}; it must be one of {', '.join(VERDICTS)}.")
    if not finding.strip() or not evidence.strip():
        raise ValueError(f"the verdict on {claim} has no {'finding' if not finding.strip() else 'evidence'}.")
    for name, options in under.items():
        known = READINGS[name].options if name in READINGS else ()
        if list(options) != [option for option in known if option in options] or known[0] not in options:
            raise ValueError(f"{claim} is judged under {name} as {list(options)}; it must be among {list(known)}.")
    words = words_of(under)
    if under and verdict != (DEPENDS if len(words) > 1 else min(words)):
        raise ValueError(f"the verdict on {claim} is {verdict!r}, but its readings give {', '.join(sorted(words))}.")
    return _Verdict(claim, verdict, finding, evidence, under)
