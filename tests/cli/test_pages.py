"""The pages of audit, predict --explain and evaluate --report: their structure, their values, and hostile names."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli_cases import DEFAULT, FAST, Run, picture, save
from page_checks import Page, checked
from PIL import Image

from inreach_fast.cli import exit_codes
from inreach_fast.cli.pages import audit, charts, crops, html
from inreach_fast.errors import SaveError
from inreach_fast.estimator import InReaCh
from inreach_fast.predict.explanation import Box

HOSTILE = [
    "<script>alert(1)</script>.png",
    '"><img src=x onerror=alert(2)>.png',
    "a&amp;b ' $name ${body} {}%s.png",
    "line\nbreak \u202egnp.png",
    '=cmd,"x".png',
]


def read(path: Path) -> Page:
    return checked(path.read_text(encoding="utf-8"))


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Six images, one with a defect, whose names are made to break a page."""
    folder = tmp_path / "<b>photos"
    for number, name in enumerate(HOSTILE):
        path = folder / f"{number}.png"
        save(path, picture(number, defect=number == 1)).rename(_made(folder / name.replace("/", "\u2215")))
    save(folder / "good.png", picture(9))
    return folder


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


# ----------------------------------------------------------------------------------------------------- audit


@pytest.mark.parametrize("options", [DEFAULT, FAST])
def test_the_page_of_an_audit(run: Run, training: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    report = tmp_path / "new" / "report.html"
    result = run("audit", training, *options, "--report", report, "--top", 3, "-o", tmp_path / "m", "--json")
    assert result.code == 0, result.err
    page, ranking = read(report), result.json["ranking"]
    boxes = page.all("input", type="checkbox")
    assert [box.attributes["value"] for box in boxes] == [Path(row["file"]).name for row in ranking]
    assert [float(box.attributes["data-score"]) for box in boxes] == [row["score"] for row in ranking]
    assert ["checked" in box.attributes for box in boxes] == [row["is_anomalous"] for row in ranking]
    assert ["data-above" in box.attributes for box in boxes] == [row["is_anomalous"] for row in ranking]
    articles = page.all("article")
    assert len(articles) == 3
    assert "5.png" in articles[0].text
    # Rows and columns of the defect, a block at 16 to 23, in cells of 8 pixels (FAST: 4 of the first level).
    assert "The worst patch: rows 1" in articles[0].text
    assert "The nearest nominal patch" in articles[0].text
    assert "It is confirmed by" in articles[0].text
    assert len(page.all("img", alt="Heat map over training image 5.png")) == 1
    threshold = [e for e in page.all("line") if e.attributes.get("class") == "threshold"]
    assert len(threshold) == 1
    share = result.json["report"].get("anomalous_share")
    assert ("bad images, estimated" in page.source) == (share is not None)
    if share is not None:
        assert f"({share['low']:.1%} to {share['high']:.1%})" in page.source
    assert "Coverage of the places" in page.source
    sources = [element.attributes["src"] for element in page.all("img")]
    assert len(sources) == 8 + 1 + 3 * 5  # thumbnails, coverage, and of three images five pictures each
    for source in sources:
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
            image.load()


def test_coverage_is_the_share_of_images_that_others_confirm(model: Path, default_model: Path) -> None:
    for path in (model, default_model):
        model = InReaCh.load(path)
        nominal, places = model.nominal_, model.grid_[0] * model.grid_[1]
        want = np.zeros(places)
        for row in range(len(nominal)):
            confirmed = nominal.confirmation is None or nominal.confirmation[row] <= model.threshold_
            want[nominal.patch_index[row]] += confirmed / 8
        np.testing.assert_allclose(audit.coverage(model).ravel(), want)


def test_a_region_of_interest_and_tiles_on_the_page_of_an_audit(run: Run, training: Path, tmp_path: Path) -> None:
    """The polygon is the rows and columns 8 to 40 of images of 48 x 48 pixels."""
    report, corners = tmp_path / "report.html", "0.17,0.17;0.83,0.17;0.83,0.83;0.17,0.83"
    region = ("--roi", corners, "--tile", "2x2", "--tile-overlap", "16")
    result = run("audit", training, *FAST, *region, "--report", report, "--top", 2, "-o", tmp_path / "m", "--json")
    assert result.code == 0, result.err
    model = InReaCh.load(tmp_path / "m")
    inside = audit.coverage(model)
    assert inside.shape == model.grid_
    assert 0 < np.isnan(inside).mean() < 1
    np.testing.assert_array_equal(np.isnan(inside), np.isnan(model.predict(training / "0.png").patch_scores))
    page, row = read(report), result.json["ranking"][0]
    assert Path(row["file"]).name == "5.png"
    assert "grey: outside of the region of interest" in page.source
    assert f"{row['rejected_share']:.1%}" in page.source
    # The defect is a block of the rows and columns 16 to 23.
    region = model.training_prediction(5, picture(5, defect=True)).explain().regions[0]
    for box in (region.box, region.patch_box):
        assert (max(box.top, 16), max(box.left, 16)) < (min(box.bottom, 24), min(box.right, 24))
    words = f"rows {region.patch_box.top} to {region.patch_box.bottom - 1}"
    assert f"The worst patch: {words}" in page.all("article")[0].text


def test_feedback_is_named_on_the_page(run: Run, default_model: Path, tmp_path: Path) -> None:
    copy, bad = tmp_path / "m.inreach", save(tmp_path / "new.png", picture(40, defect=True))
    shutil.copy(default_model, copy)
    assert run("threshold", copy, "1e6").code == 0
    assert run("reject", copy, bad, "--region", "16,16,8,8").code == 0
    line = run("predict", copy, bad, "--explain", tmp_path / "why").lines[0]
    assert line["feedback"] == [1]
    assert line["explanation"]["regions"][0]["feedback"] == 1
    words = "because of feedback 1 (`inreach feedback` lists it)"
    assert words in read(tmp_path / "why" / "new.html").all("article")[0].text


def test_names_are_text_wherever_they_stand(run: Run, hostile: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    result = run("audit", hostile, *DEFAULT, "--report", report, "--top", 6, "-o", tmp_path / "m", "--json")
    assert result.code == 0, result.err
    page = read(report)
    assert len(page.all("script")) == 1
    assert not [e for e in page.elements if e.tag == "b" or e.attributes.get("src") == "x"]
    values = {box.attributes["value"] for box in page.all("input", type="checkbox")}
    assert values == {html.printable(Path(row["file"]).name) for row in result.json["ranking"]}
    assert all(value.isprintable() for value in values)
    why = tmp_path / "why"
    files = [row["file"] for row in result.json["ranking"]]
    assert run("predict", tmp_path / "m", *files, "--explain", why).code == 0
    assert len(list(why.iterdir())) == 12
    for path in why.glob("*.html"):
        assert len(read(path).all("script")) == 1


def test_a_report_that_cannot_be_written_is_told_before_the_fit(run: Run, training: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file" / "report.html", tmp_path):
        for command in (("audit", training), ("evaluate", tmp_path / "nothing")):
            result = run(*command, *FAST, "--report", target, "--progress")
            assert result.code == exit_codes.OUTPUT
            assert str(target) in result.error
            assert "read:" not in result.err
    result = run("predict", tmp_path / "no model", training, "--explain", tmp_path / "file")
    assert result.code == exit_codes.OUTPUT


def test_a_model_without_thumbnails_gives_a_page_without_them(run: Run, training: Path, tmp_path: Path) -> None:
    options = (*DEFAULT, "--no-thumbnails", "--report", tmp_path / "r.html", "--top", 1, "-o", tmp_path / "m")
    assert run("audit", training, *options).code == 0
    assert not read(tmp_path / "r.html").all("img", alt="")
    assert run("predict", tmp_path / "m", training / "5.png", "--explain", tmp_path / "why").code == 0
    page = read(tmp_path / "why" / "5.html")
    assert "the model has no thumbnails" in page.source
    assert "of the network's input" in " ".join(page.source.split()).replace("&#x27;", "'")


# --------------------------------------------------------------------------------------------------- explain


def test_explanations_beside_the_json(run: Run, default_model: Path, tmp_path: Path) -> None:
    bad = save(tmp_path / "new" / "new.png", picture(30, (96, 72), defect=True))
    calm = save(tmp_path / "new" / "0.png", picture(0))
    result = run("predict", default_model, bad, calm, "--explain", tmp_path / "why")
    assert result.code == 0, result.err
    first, second = result.lines
    model = InReaCh.load(default_model)
    assert first["explanation"] == json.loads(json.dumps(model.predict(bad).explain().as_dict()))
    assert first["outputs"] == {"explanation": str(tmp_path / "why" / "new.html")}
    saved = json.loads((tmp_path / "why" / "new.json").read_text())
    assert saved == {"file": str(bad), **first["explanation"]}
    page = read(tmp_path / "why" / "new.html")
    assert page.one("h1").text == "anomalous: new/new.png"
    assert str(bad) in page.source
    regions = first["explanation"]["regions"]
    assert len(page.all("article")) == len(regions) == first["explanation"]["found"]
    top, left, bottom, right = regions[0]["box"]
    assert f"rows {top} to {bottom - 1}, columns {left} to {right - 1}" in page.all("article")[0].text
    assert Path(regions[0]["nearest"]["name"]).name in page.all("article")[0].text
    assert "Training image" in page.source  # a thumbnail, since the training images are not read
    calm = read(tmp_path / "why" / Path(second["outputs"]["explanation"]).name)
    assert ("No part of the map is above the threshold" in calm.source) == (not second["is_anomalous"])


def test_explanations_are_for_the_threshold_that_was_asked_for(
    run: Run, default_model: Path, training: Path, tmp_path: Path
) -> None:
    predict = ("predict", default_model, training / "5.png", "--explain", tmp_path)
    low, high = (run(*predict, "--threshold", value).lines[0] for value in (1e-6, 1e6))
    assert low["explanation"]["threshold"] == 1e-6
    assert low["explanation"]["regions"][0]["is_above"]
    assert not high["explanation"]["regions"][0]["is_above"]
    assert not high["explanation"]["is_anomalous"]


# -------------------------------------------------------------------------------------------------- evaluate


def test_the_page_of_an_evaluation(run: Run, labelled: Path, tmp_path: Path) -> None:
    report = tmp_path / "r" / "report.html"
    options = (*FAST, "--preset", "default", "--class", "part", "--shuffle", "0,1")
    result = run("evaluate", labelled, *options, "--report", report, "--json")
    assert result.code == 0, result.err
    page, (first, _) = read(report), result.json
    assert len(page.all("polyline")) == 4
    assert [e.text for e in page.all("h2")] == [
        "Overview",
        *(f"part, depth 3, 0 corruptions, order {i}" for i in (0, 1)),
    ]
    kinds = {kind["kind"]: kind for kind in first["kinds"]}
    assert kinds["block"]["image_auroc"] == first["with_overlap"]["image_auroc"]
    assert kinds["block"]["pro"] == first["with_overlap"]["pro"]
    assert kinds["good"]["image_auroc"] is None
    assert (kinds["block"]["images"], kinds["good"]["images"]) == (2, 2)
    cases = [e.text for e in page.all("h5")]
    assert len(cases) == 2 * 8
    assert set(cases) == {f"{kind}/{i:03}.png" for kind in ("good", "block") for i in range(2)}
    assert "one image, 99 %, ms" in page.source


def test_an_evaluation_without_masks_has_no_curve_of_pixels(run: Run, labelled: Path, tmp_path: Path) -> None:
    shutil.rmtree(labelled / "part" / "ground_truth")
    (labelled / "part" / "test" / "block").rename(labelled / "part" / "test" / "<i>block")
    options = (*FAST, "--preset", "default", "--class", "part", "--report", tmp_path / "r.html")
    result = run("evaluate", labelled, *options)
    assert result.code == 0, result.err
    page = read(tmp_path / "r.html")
    assert len(page.all("polyline")) == 1
    assert not page.all("i")
    assert "<i>block/000.png" in [e.text for e in page.all("h5")]


# ----------------------------------------------------------------------------------------------------- parts


def test_values_are_escaped_unless_they_are_html() -> None:
    assert html.fill("paragraph.html", words="<a> & \"b\" 'c' ${d}") == (
        "<p>&lt;a&gt; &amp; &quot;b&quot; &#x27;c&#x27; ${d}</p>\n"
    )
    assert html.fill("paragraph.html", words=html.Html("<b>x</b>")) == "<p><b>x</b></p>\n"
    with pytest.raises(KeyError):
        html.fill("paragraph.html")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain.png", "plain.png"),
        ("grün 图.png", "grün 图.png"),
        ("a\nb\rc\td", r"a\x0ab\x0dc\x09d"),
        ("x\u202egnp.exe", r"x\u202egnp.exe"),
        ("\udcff.png", r"\xff.png"),
        ("क\u200dष", "क\u200dष"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_names_are_shown_on_one_line(text: str, shown: str) -> None:
    assert html.printable(text) == shown
    shown.encode()


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    html.write_page(tmp_path / "a" / "p.html", "old")
    (tmp_path / "a" / "p.html").chmod(0o444)
    html.write_page(tmp_path / "a" / "p.html", "new")
    assert (tmp_path / "a" / "p.html").read_text() == "new"
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="choose another folder"):
        html.write_page(tmp_path / "file" / "p.html", "new")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "file", "p.html"]


def test_bars_of_a_histogram_are_as_high_as_their_counts() -> None:
    scores = [1.0, 1.0, 1.0, 2.0, 64.0]
    page = checked(html.page("t", "s", charts.histogram(scores, 8.0, name="h", title="scores")))
    bars = page.all("rect")
    heights = sorted(float(bar.attributes["height"]) for bar in bars)
    assert heights[-1] == pytest.approx(3 * heights[0], rel=1e-3)
    assert [bar.attributes["class"] for bar in bars] == ["below", "below", "above"]
    assert "5 images, from 1.000 to 64.00; 1 above the threshold 8.000." in page.one("desc").text
    line = page.one("line", **{"class": "threshold"})
    # 8 is half way from 1 to 64 on a logarithmic axis.
    middle = (float(bars[0].attributes["x"]) + charts._WIDTH - charts._RIGHT) / 2
    assert float(line.attributes["x1"]) == pytest.approx(middle)


@pytest.mark.parametrize("scores", [[0.0, 0.0], [3.0], [float("inf"), 1.0, 2.0], [0.0, 1e-30, 5e30], [1e9] * 3])
@pytest.mark.parametrize("threshold", [0.0, 1.0, 1e12])
def test_any_scores_make_a_histogram(scores: list[float], threshold: float) -> None:
    chart = charts.histogram(scores, threshold, name="h", title="scores")
    page = checked(html.page("t", "s", chart))
    assert page.all("rect")
    assert "nan" not in chart
    assert "inf" not in chart.replace("info", "")


def test_a_curve_is_cut_where_the_chart_ends() -> None:
    chart = charts.curve(
        [0, 0.2, 0.4], [0, 0.5, 1.0], name="c", title="t", words="w", x_words="x", y_words="y", x_end=0.3
    )
    points = checked(html.page("t", "s", chart)).one("polyline").attributes["points"].split()
    end_x, end_y = map(float, points[-1].split(","))
    assert end_x == charts._WIDTH - charts._RIGHT
    low, high = charts._HEIGHT - charts._BOTTOM, charts._TOP
    assert end_y == pytest.approx(low + 0.75 * (high - low), abs=0.01)
    many = charts.curve(
        np.linspace(0, 1, 10**5), np.linspace(0, 1, 10**5), name="c", title="t", words="w", x_words="x", y_words="y"
    )
    assert len(many) < 20_000


def test_a_crop_shows_the_box_and_its_surroundings() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    image[100:108, 40:48] = 255
    part = crops.crop(image, Box(100, 40, 108, 48))
    assert max(part.shape) == crops.CROP_SIDE
    assert part[part.shape[0] // 2, part.shape[1] // 2].min() > 240
    assert (part == (0, 255, 255)).all(axis=2).any()
    for box in (Box(0, 0, 1, 1), Box(199, 299, 200, 300), Box(0, 0, 200, 300)):  # corners, and all of it
        assert max(crops.crop(image, box).shape) == crops.CROP_SIDE
    assert max(crops.crop(np.zeros((1, 1, 3), np.uint8), Box(0, 0, 1, 1)).shape) == crops.CROP_SIDE
    tall = crops.numbered(np.zeros((900, 3, 3), np.uint8), [Box(0, 0, 900, 3)])
    assert tall.shape[:2] == (480, 2)


def test_pictures_are_data_of_the_page() -> None:
    uri = crops.jpeg_uri(np.zeros((4, 4, 3), np.uint8))
    assert uri.startswith("data:image/jpeg;base64,")
    grid = crops.grid_uri(np.array([[0.0, 0.5], [np.nan, 1.0]]))
    assert grid.startswith("data:image/png;base64,")


def test_thousands_of_images_make_a_usable_page(default_model: Path, training: Path) -> None:
    model = InReaCh.load(default_model)
    rows = [
        {"rank": i + 1, "file": str(training / f"{i % 8}.png"), "score": 10.0 - i * 1e-3, "threshold": 9.9,
         "is_anomalous": i < 100, "image": i % 8} for i in range(3000)
    ]  # fmt: skip
    page = checked(audit.audit_page(model, training, rows, []))
    assert len(page.all("input", type="checkbox")) == audit.MOST_ROWS
    assert len(page.all("img", alt="")) == audit.MOST_PICTURES
    assert f"{3000 - audit.MOST_ROWS} images that score less are left out" in page.source


def test_pictures_are_not_larger_than_the_page_shows_them(run: Run, training: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    for number in range(3):
        save(large / f"{number}.png", picture(number, (700, 1500), defect=number == 1))
    assert run("audit", large, *DEFAULT, "--report", tmp_path / "r.html", "--top", 1).code == 0
    for element in read(tmp_path / "r.html").all("img"):
        assert max(int(element.attributes.get("width", 0)), int(element.attributes.get("height", 0))) <= 480
