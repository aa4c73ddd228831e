"""The report: one file that opens offline, with every string escaped."""

import base64
import re

import numpy as np
import pytest
from kestrel.engine.report import Report
from kestrel.models.task import Input
from kestrel.tests.support import rasters, toys
from kestrel.tests.support.jobs import run
from kestrel.tests.support.pages import Page

EVIL = "<script>alert('x')</script>&\"'"


def test_feature_everything_is_escaped():
    report = Report(EVIL, EVIL)
    report.section(EVIL)
    report.paragraph(EVIL)
    report.warnings([EVIL])
    report.table((EVIL,), [(EVIL,)])
    report.pairs({EVIL: {EVIL: EVIL}})
    report.picture(b"png", EVIL)
    report.side_by_side([(b"png", EVIL), (b"png", EVIL)])
    page = Page(report.html())
    assert "script" not in page.tags
    assert page.texts.count(EVIL) >= 10
    assert page.open == []


def test_feature_pictures_are_called_what_they_are():
    report = Report("t")
    report.picture(b"\x89PNG", "one")
    report.side_by_side([(b"\xff\xd8\xff\xe0", "two"), (b"\x89PNG", "three")])
    page = Page(report.html())
    assert [link.split(";")[0] for link in page.links] == [
        "data:image/png", "data:image/jpeg", "data:image/png",
    ]  # fmt: skip
    assert base64.b64decode(page.links[1].split(",")[1]) == b"\xff\xd8\xff\xe0"
    assert [text for text in page.texts if text in ("one", "two", "three")] == ["one", "two", "three"]


def test_feature_numbers_and_nothing():
    report = Report("t")
    report.table(("a",), [(1.23456789,), (None,), (True,), (7,)])
    cells = re.findall(r"<td.*?</td>", report.html())
    assert cells == [
        '<td class="number">1.23457</td>',
        "<td></td>",
        "<td>True</td>",
        '<td class="number">7</td>',
    ]


@pytest.mark.parametrize("ships", [[], [(20, 20, 40, 26), (100, 50, 112, 80)]])
def test_smoke_boxes_report(tmp_path, ships):
    folder = tmp_path / "<b>bold & 'folder'"
    folder.mkdir()
    image = rasters.sea(128, 160, ships)
    image[100:110, 5:20] = 0
    path = rasters.write(folder / "scene.tif", image, nodata=0)
    task = toys.toy_task(inputs=(Input("image", gsd=(0.5, 5), pad=0.0),))
    outcome, _ = run(path, tmp_path, report=True, confidence=0.25, builder=lambda *_: task)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("img") == (2 if ships else 1)
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    for link in page.links:
        assert base64.b64decode(link.split(",")[1]).startswith(b"\x89PNG")
    assert "b" not in page.tags
    assert str(path) in page.texts
    assert outcome.warnings[0] in page.texts
    headings = ["Scene", "Objects", "Warnings", "Pixels and tiles", "Parameters as used", "Seconds by stage"]
    assert all(heading in page.texts for heading in headings)
    assert "confidence" in page.texts


def test_feature_quicklook_shows_the_scene(tmp_path):
    from kestrel.engine.grid import plan_grid
    from kestrel.engine.quicklook import SIZE, Quicklook
    from kestrel.engine.tiles import Loaded

    scene = np.random.default_rng(0).random((1300, 2600)).astype(np.float32)
    valid = scene > 0.1
    grid = plan_grid(1300, 2600, 256, 64, 64, 0)
    picture = Quicklook(grid)
    for number in range(len(grid)):
        tile = grid.at(*divmod(number, len(grid.xs)))
        window = np.s_[tile.row : tile.row + 256, tile.col : tile.col + 256]
        picture.add(Loaded(tile, scene[window][None], valid[window]))
    step = picture.step
    assert max(picture.image.shape) <= SIZE
    expected = np.where(valid, scene, np.nan)[::step, ::step]
    assert np.array_equal(picture.image, expected, equal_nan=True)
