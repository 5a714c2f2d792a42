"""Every study behind the chapters, by the name of its table in results/experiments."""

from studies import couplings, generators, pairs, phases, rates

STUDIES = {
    study.table: study
    for study in (
        *(rates.rate(), rates.singles(), pairs.pairs()),
        *(couplings.stability(), couplings.coupling(), couplings.equilibria(), couplings.commons(), couplings.swing()),
        *(phases.phases(), generators.generators(), generators.sobol(), generators.importance(), generators.early()),
    )
}
