"""What must hold on an open page: functions of the page and of what it shows, that raise where it does not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import flow_checks
import numpy as np
from playwright.sync_api import Page

from jaxflow.views._sentences import NO_PATH
from jaxflow.views.html._strip import DASH

if TYPE_CHECKING:
    from examples import Example

    from jaxflow import Explanation


def numbers_of(page: Page, row: int, explanation: Explanation) -> None:
    """Hold the numbers of the strip against the scores of an output, as written and in full."""
    near = np.asarray(explanation.attribution.certificate.trivial)[row] > 0
    shown = page.locator(".token[data-i] small").all_text_contents()
    titles = page.locator(".token[data-i]").evaluate_all("all => all.map(one => one.title)")
    for text, title, score, is_near in zip(shown, titles, explanation.scores[row], near, strict=True):
        full = title.rsplit(": ", 1)[1]
        if is_near:  # the script has six digits of a score, and rounds those
            assert abs(float(text) - score) <= 5.01e-4, (text, score)
            assert abs(float(full) - score) <= 5.01e-7, (title, score)
        else:
            assert (text, full) == (DASH, NO_PATH)


def full_text(explanation: Explanation, row: int, player: int) -> str:
    """Write a score as it is told."""
    is_near = explanation.attribution.certificate.trivial[row, player] > 0
    return f"{explanation.scores[row, player]:.6f}" if is_near else "no path"


def strip_shows_scores(page: Page, example: Example) -> None:
    numbers_of(page, 0, example.explanation)


def keys_and_pointer_look_at_tokens(page: Page, example: Example) -> None:
    tokens, readout = page.locator(".token[data-i]"), page.locator(".strip-readout").first
    expected = full_text(example.explanation, 0, 1)
    tokens.nth(1).hover()
    assert expected in readout.text_content(), readout.text_content()
    page.mouse.move(0, 0)
    assert readout.text_content() == ""
    tokens.nth(0).focus()
    rtl = tokens.nth(0).evaluate("one => !!one.closest('[dir=rtl]')")
    page.keyboard.press("ArrowLeft" if rtl else "ArrowRight")
    assert expected in readout.text_content(), readout.text_content()
    assert tokens.nth(1).evaluate("one => one === document.activeElement")
    page.keyboard.press("Escape")
    assert readout.text_content() == ""


def slider_steps_through_outputs(page: Page, example: Example) -> None:
    explanation = example.explanation
    last = len(explanation.scores) - 1
    slider = page.locator("input.row")
    slider.focus()
    page.keyboard.press("ArrowRight")
    numbers_of(page, 1, explanation)
    page.keyboard.press("End")
    numbers_of(page, last, explanation)
    position = int(explanation.attribution.positions[last])
    assert page.locator(".which").text_content().startswith(f"Output {position}: ")
    assert page.locator(".matrix tbody tr.on").evaluate("row => row.rowIndex - 1") == last
    flow_checks.layers_of(page, last, explanation)
    page.locator("button.back").click()
    numbers_of(page, last - 1, explanation)
    page.locator(".token[data-i]").first.focus()
    page.keyboard.press("ArrowDown")
    numbers_of(page, last, explanation)
    page.locator(".matrix tbody tr").first.locator("th").click()
    numbers_of(page, 0, explanation)
    page.keyboard.press("Escape")


def matrix_shows_scores(page: Page, example: Example) -> None:
    explanation = example.explanation
    near = np.asarray(explanation.attribution.certificate.trivial) > 0
    readout = page.locator(".matrix-readout")
    page.locator(".matrix-frame").focus()
    for row, way in ((0, None), (1, "ArrowDown")):
        if way:
            page.keyboard.press(way)
        for player in range(1, explanation.scores.shape[1]):
            page.keyboard.press("ArrowRight")
            expected = full_text(explanation, row, player)
            assert readout.text_content().endswith(expected), (readout.text_content(), expected)
        for _ in range(1, explanation.scores.shape[1]):
            page.keyboard.press("ArrowLeft")
    far = page.locator(".matrix td.far")
    assert far.count() == (~near).sum()
    if far.count():
        assert "repeating-linear-gradient" in far.first.evaluate("cell => getComputedStyle(cell).backgroundImage")
    cell = page.locator(".matrix tbody tr").nth(1).locator("td").last
    cell.hover()
    expected = full_text(explanation, 1, explanation.scores.shape[1] - 1)
    assert readout.text_content().endswith(expected)


def picture_shows_scores(page: Page, example: Example) -> None:
    """The matrix of a long text is a picture: its pixels' strength is the scores, and pointing at one tells it."""
    scores = example.explanation.scores
    alpha = page.evaluate(
        """async () => {
          const image = new Image();
          image.src = getComputedStyle(document.querySelector(".heat i")).maskImage.match(/"(.*)"/)[1];
          await image.decode();
          const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
          const context = canvas.getContext("2d");
          context.drawImage(image, 0, 0);
          const pixels = context.getImageData(0, 0, image.width, image.height).data;
          return [...pixels].filter((_, i) => i % 4 === 3);
        }"""
    )
    np.testing.assert_allclose(np.reshape(alpha, scores.shape), 255 * scores / scores.max(), atol=0.51)
    heat = page.locator(".heat")
    heat.scroll_into_view_if_needed()
    side = heat.bounding_box()["width"] / scores.shape[1]
    heat.hover(position={"x": 7.5 * side, "y": 3.5 * side})
    number = page.locator(".matrix-readout").text_content().rsplit(": ", 1)[1]
    digits = 3 + int(-np.log10(scores.max()))  # of the largest three, however small
    assert number == f"{scores[3, 7]:.{digits}f}", (number, scores[3, 7])
    heat.click(position={"x": 7.5 * side, "y": 3.5 * side})
    assert page.locator(".which").text_content() == "Output 3: w3"


def whole_words(page: Page, example: Example) -> None:
    box = page.locator("input.whole")
    box.check()
    assert page.locator(".tokens").is_hidden()
    shown = page.locator(".token[data-w] small").all_text_contents()
    np.testing.assert_allclose([float(text) for text in shown], example.explanation.word_scores[0], atol=5.01e-4)
    several = next(i for i, (start, stop, _) in enumerate(example.explanation.words) if stop - start > 1)
    page.locator(".token[data-w]").nth(several).focus()
    assert f"{example.explanation.word_scores[0, several]:.6f}" in page.locator(".strip-readout").text_content()
    assert page.locator("svg.flow .over path").count() > 0
    page.evaluate("document.activeElement.blur()")
    box.uncheck()
    assert page.locator(".tokens").is_visible()


def special_tokens(page: Page, example: Example) -> None:
    box = page.locator("input.specials")
    box.uncheck()
    assert page.locator(".token.special").first.is_hidden()
    box.check()
    assert page.locator(".token[data-i].special").first.is_visible()


def dark_mode(page: Page, example: Example) -> None:
    read = (
        "() => { const s = getComputedStyle(document.querySelector('.jaxflow')); return [s.backgroundColor, s.color]; }"
    )
    light = page.evaluate(read)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(read)
    page.emulate_media(color_scheme="light")
    assert brightness(light[0]) > 200 > 80 > brightness(light[1]), light
    assert brightness(dark[0]) < 60 < 180 < brightness(dark[1]), dark
    page.evaluate("document.documentElement.setAttribute('data-jp-theme-light', 'false')")  # a notebook that says so
    assert page.evaluate(read) == dark
    page.evaluate("document.documentElement.removeAttribute('data-jp-theme-light')")


def brightness(colour: str) -> float:
    return sum(float(part) for part in re.findall(r"[\d.]+", colour)[:3]) / 3


def hostile_words_are_text(page: Page, example: Example) -> None:
    assert page.title() == f"jaxflow: {example.explanation.model}"
    assert page.locator(".jaxflow img").count() == 0
    assert page.locator("script").count() == 2
    words = page.locator(".token[data-i] bdi").all_text_contents()
    assert tuple(words) == example.explanation.tokens, words
    assert "<i>label</i>" in page.locator(".lead").text_content()


def two_in_one_page(page: Page, example: Example) -> None:
    """Stepping in the second of two explanations leaves the first as it is."""
    sections = page.locator("section.jaxflow")
    assert sections.count() == 2
    first, second = sections.nth(0), sections.nth(1)
    before, other = first.inner_html(), second.locator(".which").text_content()
    second.locator("button.on").click()
    second.locator("input.share").fill("30")
    second.locator(".token[data-i]").first.focus()
    assert second.locator(".which").text_content() != other
    assert first.inner_html() == before
    numbers = [float(text) for text in first.locator(".token[data-i] small").all_text_contents()]
    np.testing.assert_allclose(numbers, example.explanation.scores[0], atol=5.01e-4)
    width = first.locator(".matrix td").nth(1).evaluate("cell => cell.getBoundingClientRect().width")
    assert 10 < width < 30, "the notebook's style of tables has no effect"


def signs_have_colours(page: Page, example: Example) -> None:
    """Scores below 0 are orange on the strip of every output and in the matrix."""
    scores = example.explanation.scores
    for row in (0, 1):
        is_minus = page.locator(".token[data-i]").evaluate_all("all => all.map(one => one.classList.contains('minus'))")
        assert is_minus == (scores[row] < 0).tolist()
        shares = page.locator(".token[data-i]").evaluate_all(
            "all => all.map(one => +one.style.getPropertyValue('--s'))"
        )
        np.testing.assert_allclose(shares, np.abs(scores[row]) / np.abs(scores).max(), atol=0.006)
        page.locator("button.on").click()
    red_and_blue = (
        "all => all.map(one => getComputedStyle(one).backgroundColor.match(/[\\d.]+/g).map(Number))"
        ".map(colour => colour[0] - colour[2])"
    )
    cells = np.array(page.locator(".matrix tbody td").evaluate_all(red_and_blue)).reshape(scores.shape)
    strong = np.abs(scores) > 0.3 * np.abs(scores).max()
    np.testing.assert_array_equal((cells > 0)[strong], (scores < 0)[strong])


def reads_without_script(page: Page, example: Example) -> None:
    numbers_of(page, 0, example.explanation)
    assert page.locator("svg.flow .flows path").count() > 0
    assert page.locator(".controls").first.is_hidden()
    assert page.locator(".share-readout").is_visible()
    assert page.locator(".matrix td").count() > example.explanation.scores.size


def patches_have_a_scale_for_each_output(page: Page, example: Example) -> None:
    scores = example.explanation.scores[:, -page.locator(".patches .token").count() :]
    for row in (0, 1):
        assert page.locator(".fullest").text_content() == f"{scores[row].max():.3g}"
        opacity = page.locator(".patches .token").evaluate_all(
            "all => all.map(one => one.style.getPropertyValue('--s') * one.parentNode.style.getPropertyValue('--scale'))"
        )
        np.testing.assert_allclose(opacity, scores[row] / scores[row].max(), atol=0.006)
        page.locator("button.on").click()


def image_is_there(page: Page, example: Example) -> None:
    found = page.locator(".patches").evaluate(
        """async (patches) => {
          const image = new Image();
          image.src = getComputedStyle(patches).backgroundImage.slice(5, -2);
          await image.decode();
          return [image.naturalHeight, image.naturalWidth];
        }"""
    )
    assert found == list(example.explanation.image.shape)
