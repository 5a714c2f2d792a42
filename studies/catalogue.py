"""Every study behind the chapters: the name of its table in results/experiments, and the function that describes it."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a plan of what is to be done needs the names alone, and not torch
    from studies.study import Study

STUDIES = {
    "rate": "rates.rate",
    "singles": "rates.singles",
    "base": "variants.base",
    "readings": "variants.other_readings",
    "mechanisms": "variants.mechanisms",
    "remaining": "variants.remaining",
    "nudges": "variants.nudges",
    "claimed_errors": "generators.claimed_errors",
    "stability": "couplings.stability",
    "coupling": "couplings.other_couplings",
    "equilibria": "couplings.equilibria",
    "commons": "couplings.commons",
    "phases": "phases.phases",
    "generators": "generators.generators",
    "sobol": "generators.sobol",
    "importance": "generators.importance",
    "early": "generators.early",
    "ablations": "repairs.ablations",
    "one_for_two": "repairs.one_for_two",
    "starts": "repairs.starts",
    "limits": "limits.limits",
    "peers": "peers.peers",
}


def study_of(table: str) -> "Study":
    """The study of a table, one of `STUDIES`."""
    module, function = STUDIES[table].split(".")
    return getattr(import_module(f"studies.{module}"), function)()
