from __future__ import annotations

import json

from inreach_fast.fit.report import FitReport


def test_it_reads_like_a_dict_and_goes_through_json() -> None:
    report = FitReport({"images": 3000})
    with report.stage("read"):
        pass
    with report.stage("read"):
        pass
    assert report["images"] == 3000
    assert set(report) == {"images", "seconds"}
    assert len(report) == 2
    assert report["seconds"]["read"] >= 0
    assert json.loads(json.dumps(report.as_dict())) == dict(report)
    assert "3,000" in repr(report)
    assert "read (s)" in repr(report)
    assert repr(FitReport()) == "FitReport(empty)"


def test_a_stage_that_fails_is_counted_too() -> None:
    report = FitReport()
    try:
        with report.stage("read"):
            raise ValueError
    except ValueError:
        pass
    assert "read" in report.seconds
