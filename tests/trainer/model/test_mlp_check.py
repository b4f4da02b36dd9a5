"""A kernel that is wrong, or does not run, is found before a model trains with it."""

import pytest

from tests.support import fused

# D, F and N that no tile of the interpreter divides; and with two tiles in F alone
SHAPE, SMALL = (19, 43, 18), (5, 33, 3)


def test_the_kernel_is_found_right(interpreted):
    right, said = interpreted(fused.proof, SHAPE, None)
    assert right, said
    assert said == ""


@pytest.mark.parametrize(
    "fault",
    [
        "no slope below zero",
        "a lost tile",
        "wrong in scoring",
        "no compiler",
    ],
)
def test_a_faulty_kernel_is_found_and_told(interpreted, fault):
    right, said = interpreted(fused.proof, SMALL, fault)
    assert not right
    assert "the fused MLP is not used" in said
    assert ("does not run here" in said) == (fault == "no compiler")
