"""Checks that a node has the driver's code, packages, versions and clock."""

from dataclasses import asdict

from sweep.messages import Requirements
from sweep.preflight.facts import Facts
from sweep.preflight.finding import Finding

SKEW_S = 5.0  # a request that is not queued is on its way for well under a second
NOT_SAID = Finding("n/a", "the driver has not said what it has")


def trainer(facts: Facts, required: Requirements) -> Finding:
    same = facts.trainer_hash == required.trainer_hash
    seen = f"trainer {facts.trainer_hash[:12]}"
    if same:
        return Finding("pass", seen)
    return Finding("refuse", f"{seen}; the driver has {required.trainer_hash[:12]}")


def sweep(facts: Facts, required: Requirements) -> Finding:
    if required.sweep_hash is None:
        return NOT_SAID
    return same_sweep(facts.sweep_hash, required.sweep_hash)


def same_sweep(here: str, drivers: str) -> Finding:
    """Whether agent and driver are of one code; else they may not understand one another."""
    seen = f"sweep {here[:12]}"
    if here == drivers:
        return Finding("pass", seen)
    return Finding("refuse", f"{seen}; the driver has {drivers[:12]}")


def lockfile(facts: Facts, required: Requirements) -> Finding:
    if required.lockfile_hash is None:
        return Finding("n/a", "the driver has no constraints.txt")
    if facts.lockfile_hash is None:
        return Finding("refuse", "no constraints.txt here, and the driver has one")
    seen = f"constraints.txt {facts.lockfile_hash[:12]}"
    if facts.lockfile_hash == required.lockfile_hash:
        return Finding("pass", seen)
    return Finding("refuse", f"{seen}; the driver has {required.lockfile_hash[:12]}")


def versions(facts: Facts, required: Requirements) -> Finding:
    if required.driver_software is None:
        return NOT_SAID
    theirs, ours = asdict(required.driver_software), asdict(facts.software)
    different = [
        f"{name} {ours[name] or 'absent'}, the driver has {theirs[name] or 'none'}"
        for name in ("python", "torch")
        if ours[name] != theirs[name]
    ]
    seen = f"Python {facts.software.python}, torch {facts.software.torch}"
    return Finding("warn", "; ".join(different)) if different else Finding("pass", seen)


def ray(facts: Facts, required: Requirements) -> Finding:
    if required.driver_software is None:
        return NOT_SAID
    ours, theirs = facts.software.ray, required.driver_software.ray
    if ours == theirs:
        return Finding("pass", f"Ray {ours}")
    return Finding("refuse", f"Ray {ours or 'absent'}, the driver has {theirs or 'none'}")


def clock(facts: Facts, required: Requirements) -> Finding:
    if required.sent_at is None:
        return NOT_SAID
    ahead_s = facts.now_at - required.sent_at
    seen = f"{abs(ahead_s):.1f} s {'after' if ahead_s >= 0 else 'before'} the driver asked"
    return Finding("pass" if abs(ahead_s) <= SKEW_S else "warn", seen)
