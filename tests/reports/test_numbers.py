import math

from segapp.reports.numbers import decimal, duration, percent, short


def test_numbers_for_people() -> None:
    assert [decimal(value) for value in (0.12345, 1, math.nan)] == ["0.1235", "1.0000", "n/a"]
    assert [percent(value) for value in (0.12345, 1, math.nan)] == ["12.35%", "100.00%", "n/a"]
    assert [short(value) for value in (30_000, 0.0125, 1e-5, 61.049, 1e9, math.nan)] == [
        "30,000",
        "0.0125",
        "1e-05",
        "61.05",
        "1e+09",
        "n/a",
    ]
    times = {0: "0 s", 59.6: "1 min", 61: "1 min 1 s", 3600: "1 h", 11_520: "3 h 12 min", 273_600: "3 d 4 h"}
    assert {each: duration(each).replace("\N{NO-BREAK SPACE}", " ") for each in times} == times
    assert duration(math.nan) == "n/a"
