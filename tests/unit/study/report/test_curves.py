import re
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from nnunetv2_d2net.study.report.curves import charts, line_style
from tests.unit.study.report.synthetic import made_up

DICE = {"A": [0.5, 0.6, 0.7], "<b>B": [0.6, 0.7, 0.83]}
COMPLETE = {"A": [0.9] * 3, "<b>B": [1.0] * 3}


@pytest.fixture
def benchmark():
    return made_up(DICE, complete=COMPLETE)


def elements(svg):
    """Parse a drawing; names and attributes without name spaces."""
    return ElementTree.fromstring(re.sub("xlink:", "", svg))


def test_curves_average_the_subsets_of_a_size(benchmark):
    (chart,) = charts(benchmark)
    assert chart.curves == {"A": pytest.approx({0: 0.9, 1: 0.6}), "<b>B": pytest.approx({0: 1.0, 1: 0.71})}


def test_a_point_tells_its_figure_and_lies_where_it_belongs(benchmark):
    (chart,) = charts(benchmark)
    points = {
        group.find("title").text: [float(use.get(axis)) for axis in ("x", "y")]
        for group in elements(chart.svg).iter("g")
        if group.find("title") is not None
        for use in group.iter("use")
    }
    assert list(points) == ["A: 0.900", "A: 0.600", "<b>B: 1.000", "<b>B: 0.710"]
    (left_x, left_y), (right_x, right_y), (_, top) = (points[name] for name in [*points][:3])
    assert left_x < right_x
    assert top < left_y < right_y  # SVG's y goes down
    assert (left_y - top) / (right_y - top) == pytest.approx(0.1 / 0.4)


def test_a_drawing_has_the_page_s_colors_and_is_the_same_every_time(benchmark):
    (chart,) = charts(benchmark)
    assert set(re.findall(r"#[0-9a-f]{6}", chart.svg)) == set()
    assert {"--arm-0", "--arm-1", "--quiet", "--rule", "--paper"} == set(re.findall(r"var\((.*?)\)", chart.svg))
    assert "stroke-dasharray: 8,4" in chart.svg
    assert "stroke-dasharray: 8 4" in line_style(1)
    assert not re.search("date|creator|http|<style", chart.svg, re.IGNORECASE)
    with mpl.rc_context({"font.size": 30, "lines.markersize": 99}):
        assert charts(benchmark)[0].svg == chart.svg


def test_drawings_of_one_page_share_no_identifier(small):
    from nnunetv2_d2net.study.report.results import read_benchmark

    drawn = charts(read_benchmark(small))
    names = [re.findall(r' id="(.*?)"', chart.svg) for chart in drawn]
    assert all(names)
    assert len(names) == 3
    assert len({name for part in names for name in part}) == sum(map(len, names))


def test_nothing_is_drawn_where_no_subset_is_made_of_the_modalities():
    benchmark = made_up(DICE)
    benchmark.setup["modalities"] = ["X", "Y"]
    assert charts(benchmark) == []
