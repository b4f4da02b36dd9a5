"""What a driver last said of its progress, as ``progress/<driver id>.json`` keeps it.

Fields of a newer version are left alone; a value that is not of its kind refuses the file.
"""

from pydantic import AwareDatetime, BaseModel, ConfigDict, FiniteFloat


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class RunningAttempt(_Said):
    """An attempt under way; what is not known yet is None.

    ``log_end`` is the end of its log of ``log_bytes``.
    """

    cell_id: str
    attempt: int
    node: str
    elapsed_s: FiniteFloat
    phase: str | None = None
    step: int | None = None
    total_steps: int | None = None
    expected_end: AwareDatetime | None = None
    log_end: str | None = None
    log_bytes: int | None = None


class DriverProgress(_Said):
    """One driver's word of the time ``at``; ``drain``: it starts no new cell.

    ``sharing``: what it waits for, or gives back, because of other sweeps on the cluster.
    """

    at: AwareDatetime
    drain: bool = False
    ends_at: AwareDatetime | None = None
    running: tuple[RunningAttempt, ...] = ()
    quarantined: dict[str, str] = {}
    paused: str | None = None
    sharing: str | None = None
