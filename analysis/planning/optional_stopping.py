"""What a reader must know of a sweep that stops when it knows: where it stands, and its basis."""

from analysis.stats.ranking import function_labels
from analysis.study import Study
from sweep.schedule.stopping import sentences


def stopping_sentences(study: Study) -> list[str]:
    """Nothing for any other sweep."""
    standing = study.sweep.standing
    if standing is None:
        return []
    ended = (
        "The selection is what this sweep shows. Intervals and p values of differences hold for a"
        " number of seeds that is fixed beforehand; here seeds were run until enough was known, so"
        " none is given."
    )
    midway = "The sweep has not ended: all of this may change, and none of it is a result."
    remark = ended if standing.end is not None else midway
    return [*sentences(standing, function_labels(study)), remark]
