"""``d2net report``: the command, and its page in a real browser."""

import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.cli.main import main
from tests.unit.study.report.synthetic import Synthetic, write_benchmark

SPEC = Synthetic(arms=("nnUNetTrainer", "D2NetTrainer"), modalities=("FLAIR", "T1", "T1ce"), cases=("a<b>", "b", "c"))
PATIENCE_SECONDS = 30


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = write_benchmark(tmp_path_factory.mktemp("report"), SPEC)
    assert main(["report", str(folder), "--published"]) == 0
    return folder


@pytest.fixture(scope="module")
def browser():
    """A headless chromium; without one these tests skip."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium and chromedriver on this machine (Debian: apt-get install chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    yield started
    started.quit()


class Page:
    """The report, opened at some width."""

    def __init__(self, browser, path: Path, width: int) -> None:
        self.browser = browser
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get_log("browser")
        browser.get(path.as_uri())
        self.wait("return document.getElementById('viewer').dataset.shown")

    def run(self, script, *args):
        return self.browser.execute_script(script, *args)

    def wait(self, script, *args):
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.browser, PATIENCE_SECONDS).until(lambda _: self.run(script, *args))

    def press(self, identity, *keys):
        from selenium.webdriver.common.by import By

        self.browser.find_element(By.ID, identity).send_keys(*keys)

    def choose(self, identity, text):
        """Take the option of a list whose text begins, or ends, like this."""
        script = (
            "const list = document.getElementById(arguments[0]);"
            "const fits = (one) => one.text.startsWith(arguments[1]) || one.text.endsWith(arguments[1]);"
            "const one = [...list.options].find((option) => fits(option));"
            "list.value = one.value; list.dispatchEvent(new Event('change', { bubbles: true }));"
        )
        self.run(script, identity, text)

    def shown(self):
        """Case, subset and slice."""
        return tuple(self.run("return document.getElementById('viewer').dataset.shown").split("|"))

    def wait_for(self, case, subset, index):
        self.wait("return document.getElementById('viewer').dataset.shown === arguments[0]", f"{case}|{subset}|{index}")

    def pictures(self):
        return self.run("return [...document.querySelectorAll('#panels canvas')].map((c) => c.toDataURL())")

    def pixels(self, number):
        """RGB of a canvas, ``(rows, columns, 3)``."""
        script = (
            "const c = document.querySelectorAll('#panels canvas')[arguments[0]];"
            "return [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]"
        )
        width, height, values = self.run(script, number)
        return np.array(values, np.uint8).reshape(height, width, 4)[..., :3].astype(int)


@pytest.mark.parametrize("width", [400, 1600])
def test_the_page_fits_and_says_nothing_on_the_console(bench, browser, width):
    page = Page(browser, bench / "report.html", width)
    full = "const e = document.documentElement; return [innerWidth, e.scrollWidth - e.clientWidth]"
    assert page.run(full) == [width, 0]
    outside = "return [...document.querySelectorAll('#panels canvas, select, input, h1, .headline')].filter((e) => {"
    outside += "const r = e.getBoundingClientRect(); return r.right > innerWidth || r.left < 0; }).length"
    assert page.run(outside) == 0
    assert page.run("return document.querySelector('.headline').getBoundingClientRect().bottom") < 900
    assert page.browser.get_log("browser") == []
    loaded = page.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert all(name.startswith("data:") for name in loaded)


def test_the_slider_moves_the_picture(bench, browser):
    from selenium.webdriver.common.keys import Keys

    page = Page(browser, bench / "report.html", 1600)
    case, subset, index = page.shown()
    before = page.pictures()
    assert len(before) == 3 + 1 + 2  # modalities, reference, arms
    page.press("slice", Keys.ARROW_RIGHT)
    page.wait_for(case, subset, int(index) + 1)
    after = page.pictures()
    assert all(a != b for a, b in zip(before, after, strict=True))
    page.press("panels", Keys.ARROW_LEFT)
    page.wait_for(case, subset, index)
    assert page.pictures() == before


def test_the_reference_lies_where_it_does_in_the_patient(bench, browser):
    """Forward and to the patient's left: above and right of the middle; with millimeters as they are."""
    page = Page(browser, bench / "report.html", 1600)
    case, _, index = page.shown()
    page.choose("style", "colored")
    image = page.pixels(3)
    colored = np.argwhere(np.ptp(image, axis=2) > 60)
    row, column = colored.mean(0) / image.shape[:2]
    assert row < 0.45
    assert column > 0.52
    labels = sitk.ReadImage(str(bench.parent / "references" / f"{case}.nii.gz"))
    share = (sitk.GetArrayFromImage(labels)[int(index)] > 0).mean()
    assert len(colored) / image[..., 0].size == pytest.approx(share, rel=0.15)
    assert image.shape[0] / image.shape[1] == pytest.approx(24 / 20, rel=0.02)


def test_missing_modalities_are_crossed_out_and_other_cases_and_arms_are_shown(bench, browser):
    page = Page(browser, bench / "report.html", 1600)
    case, _, index = page.shown()
    complete = page.pictures()
    page.choose("subset", " T1")
    page.wait_for(case, "T1", index)
    missing = page.pictures()
    changed = [a != b for a, b in zip(complete, missing, strict=True)]
    assert changed[:3] == [True, False, True]
    assert changed[4:] == [True, True]
    assert page.run("return document.querySelectorAll('#modalities .missing').length") == 2
    assert page.run("return document.getElementById('background').selectedOptions[0].text") == "T1"
    captions = page.run("return [...document.querySelectorAll('#segmentations figcaption')].map((f) => f.textContent)")
    assert "Dice: whole tumor 0." in captions[2]
    first = page.run("return document.getElementById('case').options[0].text")
    page.choose("order", "best first")
    page.wait("return document.getElementById('case').options[0].text !== arguments[0]", first)
    page.wait("return !document.getElementById('viewer').dataset.shown.startsWith(arguments[0])", case + "|")
    page.run("document.querySelector('#arms input').click()")
    page.wait("return document.querySelectorAll('#segmentations figure').length === 2")
    assert page.browser.get_log("browser") == []


def test_metrics_switch_and_cells_explain_themselves(bench, browser):
    from selenium.webdriver.common.keys import Keys

    page = Page(browser, bench / "report.html", 400)
    shown = "return [...document.querySelectorAll('[data-group=values]:not([hidden])')].map((g) => g.dataset.name)"
    assert page.run(shown) == ["dice"]
    page.run("document.querySelector('input[value=hd95]').click()")
    assert page.run(shown) == ["hd95"]
    page.run("document.querySelector('#leads [data-group]:not([hidden]) .cell[tabindex=\"0\"]').focus()")
    page.wait("return !document.getElementById('tip').hidden")
    first = page.run("return document.getElementById('tip').textContent")
    assert "95 % CI" in first
    page.run("document.activeElement.id = 'here'")
    page.press("here", Keys.ARROW_DOWN)
    page.wait("return document.getElementById('tip').textContent !== arguments[0]", first)
    box = page.run("const r = document.getElementById('tip').getBoundingClientRect(); return [r.left, r.right]")
    assert box[0] >= 0
    assert box[1] <= 400
    assert page.run("return document.querySelector('#published details').open") is False


def test_a_table_that_scrolls_says_so_and_the_keyboard_reaches_it(bench, browser):
    page = Page(browser, bench / "report.html", 400)
    wide = page.run(
        "return [...document.querySelectorAll('.scroll.wide')].map((box) => box.getAttribute('aria-label'))"
    )
    assert "Training and cost of each arm" in wide
    page.run("const box = document.querySelector('#setup .scroll'); box.focus(); box.scrollLeft = box.scrollWidth")
    assert page.run("return document.activeElement.matches('.scroll[role=region]')")
    cue = "return getComputedStyle(document.querySelector('#setup .scroll'), '::before')"
    assert "goes on to the right" in page.run(f"{cue}.content")
    page.wait(f"{cue}.visibility === 'hidden'")
    page = Page(browser, bench / "report.html", 1600)
    page.wait("return !document.querySelector('#verdict .scroll').matches('.wide, [tabindex]')")


def test_on_paper_nothing_is_cut_and_pictures_say_what_they_show(bench, browser):
    page = Page(browser, bench / "report.html", 1600)
    case, subset, _ = page.shown()
    a4 = {"width": 703, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    try:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", a4)
        page.run("dispatchEvent(new Event('beforeprint'))")
        assert page.run("return document.querySelectorAll('details:not([open])').length") == 0
        outside = "return [...document.querySelectorAll('table, canvas, svg, dd')].filter((e) => {"
        outside += "const r = e.getBoundingClientRect(); return r.right > innerWidth + 1 || r.left < -1; }).length"
        assert page.run(outside) == 0
        places = page.run("return [...document.querySelectorAll('#panels figure')].map((f) => f.innerText)")
        assert len(places) == 3 + 1 + 2
        assert all(f"case {case}, available: {subset}, slice " in place for place in places)
        assert page.run("return document.querySelector('.controls').offsetParent") is None
        page.run("dispatchEvent(new Event('afterprint'))")
        assert page.run("return document.querySelector('#published details').open") is False
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert page.run("return getComputedStyle(document.querySelector('.place')).display") == "none"


def test_a_plane_picture_is_shown_in_the_browser(browser, tmp_path):
    spec = Synthetic(
        arms=("A", "B"),
        modalities=("x", "y"),
        regions={"r": (1,)},
        cases=("p", "q"),
        shape=(1, 20, 30),
        spacing=(1, 3, 1),
    )
    folder = write_benchmark(tmp_path, spec)
    assert main(["report", str(folder)]) == 0
    page = Page(browser, folder / "report.html", 1600)
    image = page.pixels(0)
    assert image.shape[0] / image.shape[1] == pytest.approx(20 * 3 / 30, rel=0.02)
    assert image.max() > 100
    assert page.browser.get_log("browser") == []


def test_the_picture_of_the_pages_is_what_a_browser_shows(bench, browser, tmp_path, monkeypatch):
    from PIL import Image

    pictures = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "site" / "pictures.py"))
    monkeypatch.setitem(pictures["draw_report"].__globals__, "FOLDER", tmp_path)
    pictures["draw_report"](bench / "report.html")
    with Image.open(tmp_path / "report.jpg") as picture:
        assert picture.width == 820
        assert 600 < picture.height < 1829  # cut below the cases
        assert len(picture.convert("RGB").resize((64, 64)).getcolors(4096)) > 300


def test_the_command_says_what_it_wrote_and_shows_progress(bench, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["report", str(bench), "-o", str(page), "--cases", "1"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"written: {page} (")
    assert "2 others were left out" in page.read_text(encoding="utf-8")
    assert (tmp_path / "page.md").read_text(encoding="utf-8").startswith("# Dataset001_Synthetic")
    assert main(["report", str(bench), "-o", str(page), "--no_viewer"]) == 0
    assert 'id="viewer"' not in page.read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "page.md"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--cases", "0"], 2, "--cases 0: choose at least 1"),
        (["-o", "page.pdf"], 2, "ends in .html"),
        (["-o", "nowhere/page.html"], 1, "nowhere is no folder"),
        (["--fly"], 2, "unknown argument --fly"),
    ],
)
def test_wrong_words_are_refused_in_one_line(bench, capsys, words, status, message):
    assert main(["report", str(bench), *words]) == status
    *before, last = capsys.readouterr().err.splitlines()
    assert last.startswith("d2net: error: ")
    assert message in last
    assert bool(before) == (status == 2)  # the usage


def test_a_folder_of_something_else_is_refused_in_one_line(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path} is no benchmark" in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())
    assert main(["report", str(tmp_path / "none")]) == 1
    assert "none is no benchmark" in capsys.readouterr().err
