from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.windows import Calendar, Decay, Window

FIRST = date(2024, 2, 1)
WINDOWS = st.tuples(st.integers(1, 40), st.integers(0, 40)).map(lambda pair: Window(pair[0], pair[0] + pair[1]))


@given(
    as_of_days=st.lists(st.integers(0, 100).map(lambda ahead: FIRST + timedelta(days=ahead)), min_size=1, max_size=5),
    windows=st.lists(WINDOWS, max_size=4),
)
def test_the_pieces_that_a_window_sees_are_exactly_its_days(as_of_days, windows):
    calendar = Calendar(as_of_days, windows, {})
    as_of_by_number = {row["as_of_number"]: row["as_of"] for row in calendar.as_ofs().to_pylist()}
    days_of_piece: dict[int, set] = {}
    for row in calendar.days().to_pylist():
        days_of_piece.setdefault(row["piece"], set()).add(row["calendar_day"])
    seen: dict[tuple, set] = {(as_of, window): set() for as_of in as_of_days for window in windows}
    for row in calendar.sights().to_pylist():
        for window in windows:
            if row[window.flag]:
                seen[as_of_by_number[row["as_of_number"]], window] |= days_of_piece[row["piece"]]
    assert seen == {
        (as_of, window): {as_of - timedelta(days=ago) for ago in range(window.newest, window.oldest + 1)}
        for as_of, window in seen
    }


def test_periods_lie_between_as_of_days_and_the_eve_stands_for_all_earlier_days():
    calendar = Calendar([date(2025, 3, 3), date(2025, 3, 1)], [Window(1, 2)], {})
    days = [(row["calendar_day"].isoformat(), row["piece"], row["period"]) for row in calendar.days().to_pylist()]
    assert days == [
        ("2025-02-26", -1, 0),
        ("2025-02-27", 0, 0),
        ("2025-02-28", 0, 0),
        ("2025-03-01", 1, 1),
        ("2025-03-02", 1, 1),
    ]


def test_facts_of_the_as_of_stand_beside_it():
    calendar = Calendar([date(2025, 3, 3)], [], {"day_of_month": lambda as_of: float(as_of.day)})
    assert calendar.as_ofs().to_pylist() == [
        {"as_of_number": 0, "as_of": date(2025, 3, 3), "as_of_day": 20_150, "day_of_month": 3.0}
    ]


@pytest.mark.parametrize(("newest", "oldest", "label"), [(1, 7, "7d"), (31, 60, "31_60d"), (5, 5, "5_5d")])
def test_a_window_is_called_by_its_days(newest, oldest, label):
    assert Window(newest, oldest).label == label


@pytest.mark.parametrize(("newest", "oldest"), [(0, 7), (-1, 7), (8, 7)])
def test_a_window_that_sees_as_of_or_nothing_is_refused(newest, oldest):
    with pytest.raises(ValueError, match=f"window {newest}..{oldest}: the newest day is at least 1"):
        Window(newest, oldest)


# Decays

BUCKETS = (Window(1, 3), Window(4, 10), Window(11, 40))
DECAY = Decay(5, BUCKETS)


def test_a_weight_halves_with_the_half_life_and_is_the_mean_of_its_buckets_days():
    assert [DECAY.weight_of(Window(age, age)) for age in (5, 10, 15)] == [2**29, 2**28, 2**27]
    assert Decay(1, BUCKETS).weight_of(Window(1, 2)) == 2**30 * 3 // 8
    first, second, third = map(DECAY.weight_of, BUCKETS)
    assert [DECAY.weight_at(age) for age in (0, 1, 3, 4, 40, 41)] == [0, first, first, second, third, 0]


def test_the_lowest_line_is_the_weight_of_the_days_so_far():
    weights = [
        next(DECAY.weight_of(one) for one in (*BUCKETS, DECAY.rest) if age <= one.oldest) for age in range(1, 81)
    ]
    for days in range(200):
        assert min(start + slope * days for start, slope in DECAY.lines) == sum(weights[:days]), days


@given(
    as_of_days=st.lists(st.integers(0, 100).map(lambda ahead: FIRST + timedelta(days=ahead)), min_size=1, max_size=5),
    windows=st.lists(WINDOWS, max_size=2),
)
def test_every_day_of_a_piece_has_the_weight_of_its_own_age_whatever_other_days_are_asked_for(as_of_days, windows):
    calendar = Calendar(as_of_days, windows, {}, [DECAY])
    as_of_by_number = {row["as_of_number"]: row["as_of"] for row in calendar.as_ofs().to_pylist()}
    weights = {
        (row["piece"], as_of_by_number[row["as_of_number"]]): row[DECAY.weight] for row in calendar.sights().to_pylist()
    }
    for day in calendar.days().to_pylist():
        for as_of in as_of_days:
            age = (as_of - day["calendar_day"]).days
            assert weights.get((day["piece"], as_of), 0) == DECAY.weight_at(age), age


@pytest.mark.parametrize("buckets", [(Window(2, 3),), (Window(1, 3), Window(5, 6)), (Window(1, 3), Window(3, 6))])
def test_buckets_with_a_gap_or_an_overlap_are_refused(buckets):
    with pytest.raises(ValueError, match="without gap or overlap"):
        Decay(5, buckets)
