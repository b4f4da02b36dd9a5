"""Codes are set to zero until the artifact fits: the cheapest, and no more than needed."""

import pytest
import torch

from tests.support.tiny import tiny_recipe
from trainer.compress import containers
from trainer.compress.artifact import artifact_of, pack

HASH = "0123456789abcdef"
CONFIG = tiny_recipe().quantization


def prunable():
    """Rows of very different scales, most of whose codes are small."""
    draw = torch.Generator().manual_seed(9)
    w = torch.randn(2, 24, 96, generator=draw).pow(3) * torch.logspace(-2, 1, 24)[:, None]
    return {"up_bank": w, "bigram.proj": w[0, :, :64], "embed": w[1]}


def read(packed):
    return containers.read(artifact_of(packed, CONFIG), CONFIG)[0]


def size(packed):
    return len(artifact_of(packed, CONFIG))


def pruned(target, **changes):
    config = CONFIG.model_copy(update={"prune_to_bytes": target, **changes})
    packed = pack(prunable(), config, HASH)
    return packed, read(packed)


def sizes():
    """Unpruned, and with every candidate gone."""
    return [size(pack(prunable(), CONFIG, HASH)), size(pruned(1)[0])]


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.6, 0.98])
def test_pruning_meets_its_target_with_no_code_to_spare(fraction):
    """With one code less the file would be too large. The codes that went are those of the
    smallest scale. Not claimed: that no smaller number would do, should size not fall evenly."""
    whole, least = sizes()
    target = round(whole + fraction * (least - whole))
    before = read(pack(prunable(), CONFIG, HASH))
    packed, after = pruned(target)
    assert size(packed) <= target < whole
    gone = []  # (scale, parameter, place) of every candidate, cheapest first
    for index, name in enumerate(("up_bank", "bigram.proj")):
        scale = before[f"{name}.scale"].unsqueeze(-1).expand(before[f"{name}.codes"].shape)
        for place in (before[f"{name}.codes"].abs() == 1).nonzero().tolist():
            gone.append((float(scale[tuple(place)]), index, tuple(place)))
    gone.sort()
    assert 0 < packed.pruned_codes <= len(gone)
    expected = {name: tensor.clone() for name, tensor in before.items()}
    for number, (_, index, place) in enumerate(gone[: packed.pruned_codes], start=1):
        if number == packed.pruned_codes:
            assert len(containers.write(expected, HASH, CONFIG)) > target
        expected[("up_bank", "bigram.proj")[index] + ".codes"][place] = 0
    assert after.keys() == expected.keys()
    assert all(torch.equal(after[name], expected[name]) for name in expected)


def test_what_fits_is_not_pruned():
    whole, _ = sizes()
    packed, _ = pruned(whole)
    assert packed.pruned_codes == 0
    plain = pack(prunable(), CONFIG, HASH)
    assert artifact_of(packed, CONFIG) == artifact_of(plain, CONFIG)
    assert plain.pruned_codes is None


def test_where_nothing_suffices_every_candidate_goes():
    packed, stored = pruned(1)
    assert packed.pruned_codes > 0
    assert not (stored["up_bank.codes"].abs() == 1).any()
    assert not (stored["bigram.proj.codes"].abs() == 1).any()
    assert (stored["embed.codes"].abs() == 1).any()  # eight bits


def test_matrices_of_eight_bits_are_not_pruned():
    packed, stored = pruned(1, matrices="int8_row")
    assert packed.pruned_codes == 0
    assert (stored["up_bank.codes"].abs() == 1).any()


def test_code_counts_against_the_target():
    whole, least = sizes()
    target = (whole + least) // 2
    config = CONFIG.model_copy(update={"prune_to_bytes": target + 1000})
    assert pack(prunable(), config, HASH, code_bytes=1000) == pruned(target)[0]
