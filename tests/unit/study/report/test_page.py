import html
import json
import re
import shutil

import pytest

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.study.report.curves import charts
from nnunetv2_d2net.study.report.page import arm_rows, html_page, markdown_page, write_report
from nnunetv2_d2net.study.report.results import read_benchmark
from nnunetv2_d2net.study.report.verdict import verdict
from nnunetv2_d2net.study.report.viewer import make_viewer, rank_cases
from nnunetv2_d2net.study.scores.tables import ONE_TRAINING
from tests.unit.study.report.conftest import HOSTILE
from tests.unit.study.report.synthetic import Synthetic, made_up, write_benchmark


@pytest.fixture
def folder(small, tmp_path):
    shutil.copytree(small, tmp_path / "bench")
    return tmp_path / "bench"


@pytest.fixture(scope="module")
def page(small):
    benchmark = read_benchmark(small)
    return html_page(benchmark, charts(benchmark), make_viewer(benchmark), published=True)


def test_names_cannot_become_markup(page):
    assert "<img" not in page
    assert "</script><b>" not in page
    assert "&lt;/script&gt;&lt;b&gt;" in page
    assert page.count("<script") == page.count("</script>")
    content = json.loads(re.search(r'id="content">(.*?)</script>', page, re.DOTALL)[1])
    assert {case["name"] for case in content["cases"]} == {"case_0", HOSTILE}


def test_nothing_is_loaded_from_elsewhere(page):
    assert not re.search(r"""(?:src|href|url\()\s*=?\s*["']?(?:https?:)?//""", page)
    assert "default-src 'none'; img-src data:" in html.unescape(page)


def test_the_list_of_contents_leads_to_every_section(page, small):
    listed = re.findall(r'<li><a href="#(\w+)">', page)
    assert listed == re.findall(r'<section id="(\w+)"', page)
    assert {"verdict", "values", "viewer", "setup", "published"} <= set(listed)
    benchmark = read_benchmark(small)
    without = re.findall(r'<li><a href="#(\w+)">', html_page(benchmark, [], None))
    assert set(listed) - set(without) == {"curves", "viewer", "published"}


def test_every_row_of_every_table_has_a_header(page):
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page[page.index("<body>") :], re.DOTALL)
    assert len(rows) > 20
    for row in rows:
        first = re.match(r'\s*<th scope="(col|row)"', row)
        assert first, row
        assert (first[1] == "col") == ("<td" not in row)
    assert '<th scope="row" class="subset"><span class="unseen">T1</span></th>' in page


def test_published_figures_are_closed_and_called_another_data_set(page, small):
    published = page[page.index('<section id="published"') :]
    assert "another data set" in published
    assert "<details>" in published
    assert "0.352" in published
    benchmark = read_benchmark(small)
    assert 'id="published"' not in html_page(benchmark, [], None)
    assert "another data set" not in markdown_page(benchmark, charts(benchmark))
    assert "| HeMIS " in markdown_page(benchmark, [], published=True)


def test_other_files_of_its_name_are_not_written_over(folder, tmp_path):
    benchmark, page = read_benchmark(folder), tmp_path / "README.html"
    for file in (page, page.with_suffix(".md")):
        file.write_text("mine", encoding="utf-8")
        with pytest.raises(UserError, match=rf"{file.name} is no report, .*: pass another -o"):
            write_report(benchmark, page, n_cases=0)
        assert file.read_text(encoding="utf-8") == "mine"
        file.unlink()
    for _ in range(2):
        write_report(benchmark, page, n_cases=0)


def test_markdown_begins_with_the_verdict(small):
    benchmark = read_benchmark(small)
    text = markdown_page(benchmark, charts(benchmark))
    lines = [line for line in text.splitlines() if line]
    assert lines[1].startswith("**D2NetTrainer ")
    assert "Research use only" in text
    assert "20.6 min" in text
    assert "\n\n\n" not in text


def test_a_single_arm_has_nothing_to_compare_with():
    benchmark = made_up({"D2NetTrainer": [0.3, 0.9]})
    assert "**There is nothing to compare with.**" in markdown_page(benchmark, [])
    assert "<strong>There is nothing to compare with.</strong>" in html_page(benchmark, [], None)
    assert all(ONE_TRAINING in page for page in (markdown_page(benchmark, []), html_page(benchmark, [], None)))


def test_the_worst_and_the_best_cases_are_chosen(monkeypatch):
    benchmark = made_up({"A": [0.5] * 6, "D2NetTrainer": [0.3, 0.9, 0.1, 0.5, 0.8, 0.6]})
    assert rank_cases(benchmark) == ["c2", "c0", "c3", "c5", "c4", "c1"]
    seen = []

    class Maker:
        labels, blobs, problems = (0, 1), (), ()

        def __init__(self, *_):
            pass

        def case(self, case):
            seen.append(case)

        def regions(self):
            return []

    monkeypatch.setattr("nnunetv2_d2net.study.report.viewer._Maker", Maker)
    assert make_viewer(benchmark, 3).n_left_out == 3
    assert seen == ["c2", "c0", "c1"]
    seen.clear()
    assert make_viewer(benchmark, 9).n_left_out == 0
    assert seen == rank_cases(benchmark)


def test_what_cannot_be_read_is_left_out_and_told(folder):
    (folder / "D2NetTrainer" / "predictions" / "T1" / "case_0.nii.gz").unlink()
    (folder / "nnUNetTrainer" / "predictions" / "T2" / "case_0.nii.gz").write_bytes(b"")
    viewer = make_viewer(read_benchmark(folder))
    assert len(viewer.problems) == 2
    assert any("T1/case_0.nii.gz is not there" in problem for problem in viewer.problems)
    case = next(case for case in viewer.content["cases"] if case["name"] == "case_0")
    subsets = [subset["name"] for subset in viewer.content["subsets"]]
    sizes = dict(zip(subsets, case["predictions"][1]["sizes"], strict=True))
    assert (sizes["T1"], sizes["T2"] > 0) == (0, True)


def test_a_modality_that_a_case_lacks_has_no_picture(folder, tmp_path):
    setup = json.loads((folder / "setup.json").read_text(encoding="utf-8"))
    shutil.copytree(setup["images"], tmp_path / "images")
    (tmp_path / "images" / "case_0_0001.nii.gz").unlink()
    (folder / "setup.json").write_text(json.dumps(setup | {"images": str(tmp_path / "images")}), encoding="utf-8")
    cases = {case["name"]: case["images"] for case in make_viewer(read_benchmark(folder)).content["cases"]}
    assert [image is None for image in cases["case_0"]] == [False, True]
    assert None not in cases[HOSTILE]


def test_a_page_of_moved_images_has_no_viewer_but_all_else(folder):
    setup = json.loads((folder / "setup.json").read_text(encoding="utf-8"))
    (folder / "setup.json").write_text(json.dumps(setup | {"images": str(folder / "nowhere")}), encoding="utf-8")
    benchmark = read_benchmark(folder)
    page = html_page(benchmark, charts(benchmark), make_viewer(benchmark))
    assert "No case can be shown." in page
    assert "nowhere cannot be read" in page
    assert "Every subset and region" in page


def test_large_pictures_lose_slices_evenly(small, monkeypatch):
    benchmark = read_benchmark(small)
    every = make_viewer(benchmark).content["cases"][0]
    assert every["slices"] == list(range(1, 7))
    monkeypatch.setattr("nnunetv2_d2net.study.report.viewer._ALL_CHARACTERS", 1800)
    thinned = make_viewer(benchmark)
    case = next(case for case in thinned.content["cases"] if case["name"] == every["name"])
    assert len(case["slices"]) < 6
    assert len({b - a for a, b in zip(case["slices"], case["slices"][1:], strict=False)}) <= 1
    assert case["slices"][case["start"]] == every["slices"][every["start"]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("setup.json", None, "is no benchmark"),
        ("setup.json", "{", "setup.json is no JSON"),
        ("setup.json", "[]", "setup.json holds a list"),
        ("setup.json", '{"arms": []}', 'lacks "modalities"'),
        ("D2NetTrainer/metrics.csv", None, "the benchmark is not finished"),
        ("D2NetTrainer/metrics.csv", "", "holds no score"),
        ("comparison.csv", None, "comparison.csv cannot be read"),
        ("comparison.csv", "a,b\n1,2\n", "comparison.csv cannot be read"),
    ],
)
def test_a_folder_that_is_no_finished_benchmark_is_refused_in_one_line(folder, name, text, message):
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as error:
        read_benchmark(folder)
    assert "\n" not in str(error.value)


def test_a_benchmark_whose_scores_may_be_of_several_runs_is_no_finished_one(folder):
    (folder / "gathered.json").unlink()
    with pytest.raises(UserError, match="is not finished: some of its scores may be older than others"):
        read_benchmark(folder)
    assert read_benchmark(folder, finished=False).arms


def test_the_standings_say_of_how_many_cases_they_are(folder):
    metrics = folder / "D2NetTrainer" / "metrics.csv"
    rows = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    metrics.write_text("".join(row for row in rows if not row.startswith("case_0,T2,")), encoding="utf-8")
    benchmark = read_benchmark(folder)
    n = len(benchmark.cases)
    assert verdict(benchmark).n_cases == (n - 1, n)
    drawn = charts(benchmark)
    assert f"of the cases that all arms have: {n - 1}, with all modalities {n}" in html_page(benchmark, drawn, None)
    row = next(line for line in markdown_page(benchmark, drawn).splitlines() if line.startswith("| cases "))
    assert [cell.strip() for cell in row.split("|")[2:4]] == [str(n - 1), str(n)]


@pytest.mark.parametrize("subsets", [("T2", "FLAIR+T1"), ("T2", "FLAIR+T1", "FLAIR+T1+T1ce+T2"), ("FLAIR+T1",)])
def test_the_page_is_of_the_subsets_that_there_are(tmp_path, subsets):
    benchmark = read_benchmark(write_benchmark(tmp_path, Synthetic(subsets=subsets, cases=("case_0", "case_1"))))
    drawn = charts(benchmark)
    text, page = markdown_page(benchmark, drawn), html_page(benchmark, drawn, None)
    average = f"over the {len(subsets)} subsets" if len(subsets) > 1 else "with FLAIR+T1"
    for content in (text, page):
        assert average in content
        assert "15 subsets" not in content
        assert "mean of 15" not in content
        assert ("on complete input" in content) == (len(subsets) == 3)
    assert f"| subsets | {' '.join(subsets)} |" in re.sub(" +", " ", text)


def test_the_costs_tell_what_was_trained_before_the_first_epoch():
    start = {"from": "nnUNetTrainer_5epochs", "epochs": 5}
    arms = [{"name": "A", "epochs": 10}, {"name": "B", "epochs": 5, "start": start, "steps_before": 1000}]
    rows = arm_rows(made_up({"A": [0.5, 0.6], "B": [0.6, 0.7]}, arms=arms))
    epochs = rows[0].index("epochs")
    assert [row[epochs] for row in rows[1:]] == [
        "10",
        "5 + (1000 steps of a part) + 5, from nnUNetTrainer_5epochs",
    ]
