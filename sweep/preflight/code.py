"""Does this node run the driver's code, with the driver's packages, by the driver's clock?"""

from dataclasses import asdict

from sweep.messages import Requirements
from sweep.preflight.facts import Surroundings
from sweep.preflight.finding import Finding

SKEW_S = 5.0  # a request that is not queued is on its way for well under a second
NOT_SAID = Finding("n/a", "the driver has not said what it has")


def trainer(here: Surroundings, asked: Requirements) -> Finding:
    same = here.trainer_hash == asked.trainer_hash
    seen = f"trainer {here.trainer_hash[:12]}"
    if same:
        return Finding("pass", seen)
    return Finding("refuse", f"{seen}; the driver has {asked.trainer_hash[:12]}")


def lockfile(here: Surroundings, asked: Requirements) -> Finding:
    if asked.lockfile_hash is None:
        return Finding("n/a", "the driver has no constraints.txt")
    if here.lockfile_hash is None:
        return Finding("refuse", "no constraints.txt here, and the driver has one")
    seen = f"constraints.txt {here.lockfile_hash[:12]}"
    if here.lockfile_hash == asked.lockfile_hash:
        return Finding("pass", seen)
    return Finding("refuse", f"{seen}; the driver has {asked.lockfile_hash[:12]}")


def versions(here: Surroundings, asked: Requirements) -> Finding:
    if here.driver_software is None:
        return NOT_SAID
    theirs, ours = asdict(here.driver_software), asdict(here.software)
    different = [
        f"{name} {ours[name] or 'absent'}, the driver has {theirs[name] or 'none'}"
        for name in ("python", "torch")
        if ours[name] != theirs[name]
    ]
    seen = f"Python {here.software.python}, torch {here.software.torch}"
    return Finding("warn", "; ".join(different)) if different else Finding("pass", seen)


def ray(here: Surroundings, asked: Requirements) -> Finding:
    if here.driver_software is None:
        return NOT_SAID
    ours, theirs = here.software.ray, here.driver_software.ray
    if ours == theirs:
        return Finding("pass", f"Ray {ours}")
    return Finding("refuse", f"Ray {ours or 'absent'}, the driver has {theirs or 'none'}")


def clock(here: Surroundings, asked: Requirements) -> Finding:
    if here.asked_at is None:
        return NOT_SAID
    ahead_s = here.now_at - here.asked_at
    seen = f"{abs(ahead_s):.1f} s {'after' if ahead_s >= 0 else 'before'} the driver asked"
    return Finding("pass" if abs(ahead_s) <= SKEW_S else "warn", seen)
