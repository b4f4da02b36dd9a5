"""Write attempts as runs of MLflow, one experiment a sweep: the process that a Tracker tells."""

import json
import os
from collections.abc import Iterator

from sweep.driver.listeners.attempt_metrics import TrackedAttempt
from sweep.driver.listeners.tracker import attempts_told

MAX_BATCH = 1000  # metrics that MLflow takes at once


def main() -> None:
    os.nice(19)  # cells may be timed on this machine
    import mlflow
    from mlflow.entities import Metric, Param

    client = mlflow.MlflowClient()
    for attempt in attempts_told():
        run = client.create_run(
            mlflow.set_experiment(attempt.sweep).experiment_id,
            start_time=_ms(attempt.started_at_s),
            run_name=attempt.name,
            tags=attempt.facts,
        ).info.run_id
        params = [Param(name, _text(value)) for name, value in attempt.config.items()]
        client.log_batch(run, params=params)
        metrics = [Metric(*each) for each in _metrics(attempt)]
        for start in range(0, len(metrics), MAX_BATCH):
            client.log_batch(run, metrics=metrics[start : start + MAX_BATCH])
        status = "FINISHED" if attempt.has_answer else "FAILED"
        client.set_terminated(run, status, end_time=_ms(attempt.ended_at_s))


def _metrics(attempt: TrackedAttempt) -> Iterator[tuple[str, float, int, int]]:
    """Tag, value, time and step, by the clock of the training and not of the writing."""
    for point in attempt.points:
        at_ms = _ms(attempt.started_at_s + point["train_s"])
        for tag, value in point["values"].items():
            yield tag, value, at_ms, point["step"]
    for tag, value in attempt.metrics.items():
        yield tag, value, _ms(attempt.ended_at_s), attempt.steps


def _ms(seconds: float) -> int:
    return round(1000 * seconds)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    main()
