"""What a call of `make studies` may choose, checked before anything is planned: it is done as said, or refused."""

import re
from collections.abc import Iterable, Mapping

from tvae_lib.errors import ParameterError, shown

RESERVED = ("seed", "run_dir", "device", "resume")  # what the sweep itself gives to every run
MOST = 10_000  # seeds in one call


def words(given: object) -> list[str]:
    """The parts of a text, or of a list, between commas or spaces."""
    text = ",".join(map(str, given)) if isinstance(given, list | tuple) else str(given)
    return [word for word in re.split(r"[,\s]+", text) if word]


def seeds(given: object) -> list[int]:
    """The seeds in "3", "0,3", "0-9", "0-3 7" or a list; ParameterError for anything else."""
    ends = [re.fullmatch(r"(\d{1,19})(?:-(\d{1,19}))?", word) for word in words(given)]
    ranges = [range(int(m[1]), int(m[2] or m[1]) + 1) for m in ends if m]
    if not ranges or len(ranges) < len(ends) or not all(ranges) or sum(map(len, ranges)) > MOST:
        raise ParameterError(
            f"seeds is {shown(given)}; it must be numbers and rising ranges, as 0-3,7, {MOST:,} at most."
        )
    return sorted({seed for part in ranges for seed in part})


def told(chosen: list[int]) -> str:
    """Seeds as a word for a file name: 0-3.7 for 0, 1, 2, 3, 7."""
    starts = [seed for seed in chosen if seed - 1 not in chosen]
    ends = [seed for seed in chosen if seed + 1 not in chosen]
    return ".".join(f"{a}-{b}" if a < b else str(a) for a, b in zip(starts, ends, strict=True))[:200]


def names(given: object, known: list[str]) -> list[str]:
    """The tables and settings in "phases,document" or "phases document"; all of them where nothing is given."""
    chosen = words(given) if given else known
    if not chosen or not set(chosen) <= set(known):
        raise ParameterError(f"only is {shown(given)}; it must be one or more of {', '.join(known)}.")
    return list(dict.fromkeys(chosen))


def check_settings(settings: object, taken: Iterable[str] = ()) -> None:
    """ParameterError where settings cannot be swept: a name for folders, and parameters that are a run's own."""
    if not isinstance(settings, Mapping) or not settings:
        raise ParameterError(f"settings is {shown(settings)}; it must be names of settings with their parameters.")
    for name, parameters in settings.items():
        if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9-]+", name) or name in taken:
            raise ParameterError(
                f"settings has the name {shown(name)}; it must be of a-z, 0-9 and - alone, and the name of no table."
            )
        if not isinstance(parameters, Mapping):
            raise ParameterError(f"setting {name} is {shown(parameters)}; it must be parameters with their values.")
        for parameter, value in parameters.items():
            if parameter in RESERVED:
                raise ParameterError(f"{parameter} is {shown(value)} in setting {name}; the sweep itself gives it.")
            if not isinstance(parameter, str) or not parameter.isidentifier() or isinstance(value, list | Mapping):
                raise ParameterError(f"{shown(parameter)} is {shown(value)} in setting {name}; it must be one value.")


def check_seeds_of(given: object) -> None:
    """ParameterError where the seeds of single settings are none."""
    if not isinstance(given, Mapping):
        raise ParameterError(f"seeds_of is {shown(given)}; it must be names of settings with their seeds.")
    for own in given.values():
        seeds(own)


def check(config: Mapping, known: Iterable[str], tables: Iterable[str]) -> None:
    """ParameterError where the configuration of a call has a key that nothing reads, or a value that cannot be."""
    for key, value in config.items():
        if key not in set(known):
            raise ParameterError(f"{key} is {shown(value)}, but nothing reads it; allowed are {', '.join(known)}.")
    check_settings(config["settings"], tables)
    for name in config["examined"] or ():
        if name not in config["settings"]:
            raise ParameterError(f"examined has {shown(name)}; it must be of {', '.join(config['settings'])}.")
    check_seeds_of(config["seeds_of"])
    for key in ("runs", "results", "tables", "notebook", "device"):
        if not isinstance(config[key], str) or not config[key]:
            raise ParameterError(f"{key} is {shown(config[key])}; it must be text.")
