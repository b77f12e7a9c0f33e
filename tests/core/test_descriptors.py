"""The arithmetic of descriptors."""

from sergeant_linux.core.descriptors import BIRTH, BIRTHS, LIFE, RESERVE, STANDING, needed


def test_each_worker_takes_as_many_as_a_life_holds() -> None:
    assert needed(4, 11) - needed(4, 10) == LIFE


def test_what_was_open_before_counts() -> None:
    assert needed(104, 10) - needed(4, 10) == 100


def test_the_last_life_finds_its_descriptors_and_the_reserve_beside_all_others() -> None:
    others = 4 + STANDING + 9 * LIFE + (BIRTHS - 1) * (BIRTH - LIFE)
    assert others + BIRTH + RESERVE <= needed(4, 10)
