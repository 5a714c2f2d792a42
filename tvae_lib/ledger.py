"""The verdicts on the documents' claims: chapters declare them here, `book/generate.py` collects them."""

from dataclasses import dataclass

VERDICTS = ("proved", "holds", "holds with a correction", "refuted", "vacuous", "not testable")
MIME = "application/vnd.tvae.verdict+json"


@dataclass(frozen=True)
class _Verdict:
    """One verdict with its evidence; shown as a line on the page, read from the stored output by the ledger."""

    claim: str
    verdict: str
    finding: str
    evidence: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {
            "text/markdown": f"**{self.claim} · {self.verdict}.** {self.finding}",
            "text/plain": f"{self.claim} · {self.verdict}. {self.finding}",
            MIME: {key: getattr(self, key) for key in ("claim", "verdict", "finding", "evidence")},
        }


def verdict(claim: str, verdict: str, finding: str, evidence: str) -> _Verdict:
    """Declare what a chapter found about a claim, as the last expression of a cell.

    `claim` is an id of book/claims.yml, `verdict` one of `VERDICTS`, `finding` a sentence with the computed numbers,
    `evidence` the label of what carries it in the same chapter. ValueError where one is missing or no verdict."""
    if verdict not in VERDICTS:
        raise ValueError(f"verdict of {claim} is {verdict!r}; it must be one of {', '.join(VERDICTS)}.")
    if not finding.strip() or not evidence.strip():
        raise ValueError(f"the verdict on {claim} has no {'finding' if not finding.strip() else 'evidence'}.")
    return _Verdict(claim, verdict, finding, evidence)
