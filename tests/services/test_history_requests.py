"""What a raw history in a request may say, and what is refused by name."""

import math
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_pipeline.schema import DatasetConfig
from services.errors import InvalidRequest, RequestTooLarge, ServiceError
from services.history_lines import LINE_FIELDS, TRANSACTIONS_LIMIT
from services.history_requests import HISTORY_FIELDS, HistoryRequest, is_history, read_history

SERVED = date(2026, 1, 1)
SHOP = DatasetConfig()


def line(day="2025-06-01", amount=10, **more):
    return {"transaction_date": day, "amount": amount, "category": "Grocery", **more}


def read(*lines, config=SHOP, **more):
    return read_history({"transactions": list(lines), **more}, config, SERVED)


# ---- as_of


@pytest.mark.parametrize(
    ("days", "as_of"),
    [
        ([], "2026-01-01"),
        (["2020-05-05"], "2026-01-01"),
        (["2025-12-31"], "2026-01-01"),
        (["2026-01-01"], "2026-01-02"),
        (["2026-03-31", "2025-01-01"], "2026-04-01"),
        (["2028-02-28"], "2028-02-29"),
    ],
)
def test_the_default_as_of_is_the_served_one_or_the_day_after_the_last_line(days, as_of):
    assert read(*map(line, days)).as_of.isoformat() == as_of


@pytest.mark.parametrize("as_of", ["2025-06-02", "2025-06-02T23:59:00", "2025/06/02", "31-12-2025"])
def test_an_explicit_as_of_is_taken_where_every_line_is_before_it(as_of):
    assert read(line(), as_of=as_of).as_of in (date(2025, 6, 2), date(2025, 12, 31))


@pytest.mark.parametrize("as_of", ["2025-06-01", "2025-05-31", "1999-01-01"])
def test_lines_on_or_after_an_explicit_as_of_are_refused_by_position_and_date(as_of):
    with pytest.raises(InvalidRequest, match=rf"as_of is {as_of}.*transaction 2 \(2025-06-01\), 3 \(2025-07-01\)"):
        read(line("1998-01-01"), line(), line("2025-07-01"), as_of=as_of)


def test_of_many_late_lines_the_first_are_named():
    with pytest.raises(InvalidRequest, match=r"3 \(2025-06-01\) and 7 more"):
        read(*[line()] * 10, as_of="2025-01-01")


@pytest.mark.parametrize("field", ["as_of", "customer_since"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("05/06/2025", "day-first or month-first; write it year-first"),
        ("soon", "is no date"),
        ("", "is no date"),
        (20250101, "20250101; write a date as a text"),
        (True, "a boolean"),
        ([], "a list"),
        ("2037-01-01", "to the end of 2036"),
        ("1850-01-01", "dates are read from"),
    ],
)
def test_a_day_beside_the_lines_has_to_be_clear_by_itself(field, value, words):
    with pytest.raises(InvalidRequest, match=rf"{field} is .*{words}"):
        read(line("1998-01-01"), **{field: value})


# ---- dates of lines


@pytest.mark.parametrize(
    "text", ["2025-01-31 15:30:00", "31-01-2025 15:30", "2025/01/31", "2025-01-31T23:59:59.5", "31 Jan 2025"]
)
def test_dates_come_in_the_spellings_of_the_tables(text):
    found = read(line(text))
    assert (found.lines[0]["transaction_date"], found.warnings) == (date(2025, 1, 31), [])


def test_day_first_or_month_first_is_decided_once_and_a_guess_is_said():
    month_first = read(line("05/06/2025"), line("06/13/2025"))
    assert (month_first.lines[0]["transaction_date"], month_first.warnings) == (date(2025, 5, 6), [])
    guessed = read(line("05/06/2025"), line("07/06/2025"))
    assert guessed.lines[0]["transaction_date"] == date(2025, 6, 5)
    assert guessed.warnings[0].startswith("2 transaction_dates can be read day-first or month-first")
    told = read(line("05/06/2025"), config=DatasetConfig(dayfirst=False))
    assert (told.lines[0]["transaction_date"], told.warnings) == (date(2025, 5, 6), [])


def test_an_offset_is_brought_to_the_shops_timezone_or_said_to_be_ignored():
    india = DatasetConfig(timezone="Asia/Kolkata")
    assert read(line("2025-01-31T20:00:00Z"), config=india).lines[0]["transaction_date"] == date(2025, 2, 1)
    unknown = read(line("2025-01-31T20:00:00Z"))
    assert unknown.lines[0]["transaction_date"] == date(2025, 1, 31)
    assert "1 transaction_date with an offset from UTC" in unknown.warnings[0]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "is missing"),
        ("", "is '', which is no date"),
        ("yesterday", "is 'yesterday', which is no date"),
        ("2025-02-30", "which is no date"),
        ("2025-01-01 25:00", "which is no date"),
        ("06/13/2025", "month-first, while the history's dates are read day-first"),
        (1735689600, "is 1735689600; write a date as a text"),
        (False, "is a boolean"),
        ({"day": 1}, "is an object"),
        ("1970-01-01", "is 1970-01-01; dates are read from"),
        ("1899-12-30", "is 1899-12-30; dates are read from"),
        ("2037-01-01", "to the end of 2036"),
        ("9999-12-31", "to the end of 2036"),
        ("x" * 100_000, "is no date"),
        ("x" + " " * 1_000_000 + "y", "is no date"),
    ],
)
def test_an_impossible_date_is_refused_with_its_position_and_value(value, words):
    with pytest.raises(
        InvalidRequest, match=f"transaction 3: transaction_date {'.*' if words != 'is missing' else ''}{words}"
    ) as caught:
        read(line("13/06/2025"), line("14/06/2025"), line(value))
    assert len(str(caught.value)) < 300


# ---- lines


@pytest.mark.parametrize("field", ["amount", "quantity"])
@pytest.mark.parametrize(
    "value",
    [True, False, math.nan, math.inf, -math.inf, "NaN", "ten", "1_000", "1,5", "", "1e12", "1e999", 10**12, 10**4000, "1" * 1_000_000, "1" * 1_000_000 + "x", -1e300, [], {}, "100000000000.0000001"],
)  # fmt: skip
def test_an_impossible_number_is_refused_with_its_position(field, value):
    if field == "quantity" and isinstance(value, str) and value.startswith("1000"):
        value = "1e10"
    with pytest.raises(InvalidRequest, match=rf"transaction 2: {field} is .*write a plain number between -1"):
        read(line(), line(**{field: value}))


@pytest.mark.parametrize("value", [0.1, -3, "12.50", " 7 ", "-0.5", "1e3", 10**11, ".5"])
def test_plain_numbers_are_taken_as_numbers_or_texts(value):
    assert float(read(line(amount=value)).lines[0]["amount"]) == float(value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("category", []), ("category", True), ("category", math.nan),
        ("transaction_id", {}), ("transaction_id", False), ("product_id", ["p"]), ("store_id", math.inf),
        ("store_id", "x" * 129), ("has_promotion", "yes"), ("has_promotion", 1), ("has_promotion", []),
    ],
)  # fmt: skip
def test_a_field_of_another_type_is_refused_with_its_position(field, value):
    with pytest.raises(InvalidRequest, match=f"transaction 2: {field} is "):
        read(line(), line(**{field: value}))


def test_ids_and_categories_are_texts_or_numbers_and_blank_is_nothing():
    (found,) = read(line(category=5, transaction_id=12.0, product_id=" p1 ", store_id="  ", quantity=None)).lines
    assert (found["category"], found["transaction_id"], found["product_id"], found["store_id"], found["quantity"]) == (
        "5", "12", "p1", None, 1,
    )  # fmt: skip


def test_a_line_without_an_amount_is_refused():
    with pytest.raises(InvalidRequest, match="transaction 1: amount is missing"):
        read({"transaction_date": "2025-01-01"})


@pytest.mark.parametrize("value", ["[]", {}, 5, True, 1.5])
def test_transactions_have_to_be_a_list(value):
    with pytest.raises(InvalidRequest, match=r"transactions is .*it must be a list"):
        read_history({"transactions": value}, SHOP, SERVED)


@pytest.mark.parametrize("value", ["2025-01-01", None, 5, []])
def test_a_line_has_to_be_an_object(value):
    with pytest.raises(InvalidRequest, match=r"transaction 2 is .*it must be an object"):
        read(line(), value)


def test_a_history_has_a_limit():
    assert len(read(*[line()] * TRANSACTIONS_LIMIT).lines) == TRANSACTIONS_LIMIT
    with pytest.raises(RequestTooLarge, match="10,001 transactions; at most 10,000"):
        read(*[line()] * (TRANSACTIONS_LIMIT + 1))


# ---- what is said beside it


def test_categories_of_no_target_and_lines_without_one_are_said():
    warnings = read(
        line(category="Toys"), line(category=" GROCERY "), line(category=None), line(category="Toys")
    ).warnings
    assert warnings == [
        "Of no target (electronics, grocery, sports), so counted as other: category 'toys'.",
        "1 transaction of 4 without a category counted as other.",
    ]
    assert read(line(category=None), config=DatasetConfig(targets={})).warnings == []


def test_lines_of_nothing_and_registrations_that_do_not_fit_are_said():
    assert read(line(amount=0), line(quantity=0), line()).warnings == [
        "2 transactions of 3 with amount or quantity 0 did not count."
    ]
    assert "before customer_since" in read(line(), customer_since="2025-06-02").warnings[0]
    assert "counted as unknown" in read(line(), customer_since="2026-01-01").warnings[0]
    assert read(line(), customer_since="2025-06-01").warnings == []


def test_what_is_not_used_is_listed_once_with_its_reason():
    found = read(line(price=3), line(price=4), loyalty_status="Gold", explain=True, note="x")
    ignored = {one["field"]: one["reason"] for one in found.ignored}
    assert list(ignored) == ["loyalty_status", "explain", "note", "transactions[].price"]
    assert "today's value" in ignored["loyalty_status"]
    assert "?explain=true" in ignored["explain"]


def test_an_id_is_optional_and_read_as_any_other():
    assert read(line()).customer_id is None
    assert read(line(), customer_id=12.0).customer_id == "12"
    with pytest.raises(InvalidRequest, match="customer_id"):
        read(line(), customer_id=[])


def test_null_instead_of_transactions_is_no_history():
    assert not is_history({"transactions": None})
    assert is_history({"transactions": []})


# ---- whatever comes


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
plausible = {
    "transaction_date": st.dates().map(str) | st.sampled_from(["05/06/2025", "13/06/2025", "06/13/2025T10:00Z"]),
    "amount": st.floats(-1e6, 1e6) | st.decimals(-100, 100, places=2).map(str),
    "category": st.sampled_from(["Grocery", "toys", None]),
    "quantity": st.integers(-3, 3),
}
any_line = st.fixed_dictionaries(
    {}, optional={name: plausible.get(name, anything) | anything for name in (*LINE_FIELDS, "extra")}
)
good_line = st.fixed_dictionaries({name: plausible[name] for name in ("transaction_date", "amount", "category")})
any_request = st.fixed_dictionaries(
    {"transactions": anything | st.lists(any_line | anything, max_size=4) | st.lists(good_line, max_size=4)},
    optional={name: anything | st.dates().map(str) for name in (*HISTORY_FIELDS[2:], "customer_id", "extra")},
)


@settings(max_examples=400, deadline=None)
@given(any_request)
def test_nothing_but_a_history_or_a_refusal_comes_of_whatever_is_sent(request):
    try:
        found = read_history(request, SHOP, SERVED)
    except ServiceError:
        return
    assert isinstance(found, HistoryRequest)
    assert all(one["transaction_date"] < found.as_of for one in found.lines)
