"""Write attempts as runs of Weights & Biases, a group a sweep: the process that a Tracker tells."""

import os

from sweep.driver.listeners.tracker import attempts_told


def main() -> None:
    os.nice(19)  # cells may be timed on this machine
    import wandb

    # Of the driver, not of the node that ran the attempt: its load, output, checkout and command.
    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        x_disable_meta=True,
        x_disable_stats=True,
    )
    for attempt in attempts_told():
        run = wandb.init(
            group=attempt.sweep, name=attempt.name, config=attempt.config, settings=settings
        )
        for point in attempt.points:
            run.log({**point["values"], "train/elapsed_s": point["train_s"]}, step=point["step"])
        run.summary.update({**attempt.metrics, **attempt.facts})
        run.finish(exit_code=0 if attempt.has_answer else 1)


if __name__ == "__main__":
    main()
