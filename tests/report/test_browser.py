"""Pages as a browser shows them: light, dark, on a phone, printed, with and without the script."""

import re
import shutil

import browser
import pytest
import tables as made
from test_owner_pages import evaluate
from test_report import make_pictures

from ucjax.report import owner, page

pytestmark = pytest.mark.skipif(not browser.found(), reason="no Chromium in PATH")
PAGES = ("preview", "protect", "evaluate", "run")


@pytest.fixture(scope="module")
def shown():
    with browser.page() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(given, tmp_path_factory):
    place = tmp_path_factory.mktemp("shown")
    files = {"preview": given / "preview.html", "protect": place / "protect.html"}
    files["protect"].write_bytes((given / "out" / "report.html").read_bytes())
    copies = shutil.copytree(given / "out", place / "out")
    evaluate(copies)
    files["evaluate"] = owner.write(given / "photos", copies, evaluated=True)
    page.write(made.table(), make_pictures(), place)
    return {**files, "run": place / "report.html"}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone_and_says_nothing_to_the_console(name, pages, shown):
    shown.errors.clear()
    shown.open(pages[name], width=360, dark=True)
    assert shown.tell("document.documentElement.scrollWidth") == 360
    for wrong in ("!x.naturalWidth", "!x.alt && !x.matches('.over')"):
        assert shown.tell(f"[...document.images].filter(x => {wrong}).length") == 0
    assert shown.tell("document.images.length") > 0
    assert shown.errors == []


def test_a_phone_shows_results_without_scrolling_sideways(pages, shown):
    shown.open(pages["run"], width=360)
    fits = "(x => x.scrollWidth <= x.clientWidth)(document.querySelector('.scroll'))"
    assert shown.tell("document.querySelector('.scroll').innerText").startswith("trained on")
    assert shown.tell(fits)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", PAGES)
def test_text_can_be_read(name, dark, pages, shown):
    shown.open(pages[name], dark=dark)
    # The contrast of WCAG 2.1, of every text with what is painted behind it.
    least = shown.tell(
        """(() => {
          const luminance = color => {
            const parts = color.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255);
            const linear = parts.map(x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
            return .2126 * linear[0] + .7152 * linear[1] + .0722 * linear[2];
          };
          const behind = node => {
            for (; node; node = node.parentElement) {
              const color = getComputedStyle(node).backgroundColor;
              if (color !== "rgba(0, 0, 0, 0)") return color;
            }
            return "rgb(255, 255, 255)";
          };
          const kinds = "p, td, th, dt, dd, li, pre, figcaption, h1";
          const texts = [...document.querySelectorAll(kinds)];
          return Math.min(...texts.filter(x => x.textContent.trim()).map(x => {
            const [a, b] = [getComputedStyle(x).color, behind(x)].map(luminance);
            return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
          }));
        })()"""
    )
    assert least >= 4.5


@pytest.mark.parametrize("name", PAGES[:3])
def test_the_slider_uncovers_the_clean_picture(name, pages, shown):
    shown.open(pages[name])
    assert shown.tell("document.querySelectorAll('input').length") == shown.tell(
        "document.querySelectorAll('.pair').length"
    )
    clip = """(value => {
      const pair = document.querySelector(".pair"), range = pair.querySelector("input");
      range.value = value;
      range.dispatchEvent(new Event("input"));
      const style = getComputedStyle(pair.querySelector(".over")).clipPath;
      const boxes = [...pair.querySelectorAll(".stage img")].map(x => x.getBoundingClientRect());
      return [style, boxes[0].width - boxes[1].width, boxes[0].top - boxes[1].top];
    })"""
    for value, inset in ((0, r" 100%"), (25, r" 75%"), (100, r"\(0px( 0%| 0px)*\)")):
        style, *gaps = shown.tell(f"{clip}({value})")
        assert gaps == [0, 0]
        assert re.search(inset, style), style


@pytest.mark.parametrize("name", PAGES[:3])
def test_without_the_script_the_pictures_stand_side_by_side(name, pages, shown):
    shown.open(pages[name], script=False)
    size = shown.call("DOM.getDocument", depth=0)["root"]["nodeId"]
    boxes = []
    for query in ("img[id^=clean]", ".pair img"):
        node = shown.call("DOM.querySelector", nodeId=size, selector=query)["nodeId"]
        boxes.append(shown.call("DOM.getBoxModel", nodeId=node)["model"])
    (clean, protected) = boxes
    assert clean["content"][1] == pytest.approx(protected["content"][1], abs=1)  # tops
    assert clean["content"][2] <= protected["content"][0]  # left of it
    assert clean["width"] == pytest.approx(protected["width"], abs=1)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_printed(name, pages, shown):
    shown.open(pages[name], media="print")
    assert shown.tell("[...document.querySelectorAll('input')].every(x => !x.offsetHeight)")
    assert shown.printed().startswith(b"%PDF-")
