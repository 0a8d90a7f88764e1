"""Blocks lie beside each other, are shared by equal keys, and give way only if nobody uses them."""

import hypothesis.strategies as st
from hypothesis import given

from difftool.runtime.scheduling.pool import Block, Pool

ROWS, CONDS = 20, 12


def test_a_block_gives_way_when_room_is_needed_and_it_has_no_users() -> None:
    pool = Pool(ROWS, CONDS)
    first, second = pool.add(b"a", 8, 2, brief=True), pool.add(b"b", 8, 2, brief=True)
    assert first == Block((0, 8), (0, 2))
    assert second == Block((8, 16), (2, 4))
    second.users = 1
    assert pool.find(b"a") is first
    assert pool.add(b"c", 12, 1, brief=True) is None, "there is no gap of 12 rows while b is in use"
    assert pool.find(b"a") is None
    assert pool.add(b"c", 4, 1, brief=True) == Block((0, 4), (0, 1))
    second.users = 0
    assert pool.add(b"d", ROWS, CONDS, brief=True) == Block((0, ROWS), (0, CONDS))
    assert len(pool) == 1


def test_the_block_that_was_used_longest_ago_goes_first() -> None:
    pool = Pool(ROWS, CONDS)
    for key in (b"a", b"b"):
        pool.add(key, 10, 1, brief=True)
    pool.find(b"a")
    pool.add(b"c", 10, 1, brief=True)
    assert pool.find(b"a") is not None
    assert pool.find(b"b") is None


Wish = tuple[int, int, int, bool]  # key, rows, conds, and if it is used or left


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9), st.integers(1, 5), st.booleans())))
def test_blocks_never_overlap_and_used_ones_stay(wishes: list[Wish]) -> None:
    pool = Pool(ROWS, CONDS)
    used: dict[bytes, Block] = {}
    for number, rows, conds, use in wishes:
        key = bytes([number])
        block = pool.find(key) or pool.add(key, rows, conds, brief=True)
        if block is not None:
            block.users = int(use)
            used.pop(key, None)
            if use:
                used[key] = block
        assert pool.users == len(used)
        for key, block in used.items():
            assert pool.find(key) is block
        found = [block for number in range(7) if (block := pool.find(bytes([number])))]
        for ranges, end in (
            ([block.rows for block in found], ROWS),
            ([block.conds for block in found], CONDS),
        ):
            places = [place for first, last in ranges for place in range(first, last)]
            assert len(places) == len(set(places))
            assert all(0 <= place < end for place in places)


def test_the_last_eighth_is_for_brief_programs() -> None:
    pool = Pool(80, 16)
    assert pool.most(brief=True) == (80, 16)
    assert pool.most(brief=False) == (70, 14)
    assert pool.add(b"long", 71, 1, brief=False) is None
    assert pool.add(b"long", 1, 15, brief=False) is None
    for key in (b"a", b"b"):
        long = pool.add(key, 35, 7, brief=False)
        assert long is not None
        long.users = 1
    assert pool.add(b"c", 1, 1, brief=False) is None
    brief = pool.add(b"brief", 4, 1, brief=True)
    assert brief == Block((70, 74), (14, 15))
    brief.users, long.users = 1, 0
    # Room before the brief one, but not enough before the end.
    assert pool.add(b"d", 36, 1, brief=False) is None
    assert pool.add(b"e", 35, 7, brief=False) == Block((35, 70), (7, 14))
