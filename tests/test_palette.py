import re
from pathlib import Path

import jaxflow
from jaxflow._palette import ABOVE, BELOW, BLUE, ORANGE, PAGE, css_variables, rgb, tint

PACKAGE = Path(jaxflow.__file__).parent


def luminance(colour):
    parts = [c / 12.92 if c <= 0.04 else ((c + 0.055) / 1.055) ** 2.4 for c in (one / 255 for one in rgb(colour))]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_stand_in_the_palette_alone():
    files = [path for path in (PACKAGE / "views").rglob("*") if path.suffix in (".py", ".css", ".js", ".html", ".svg")]
    assert len(files) > 20
    found = {path.name: re.findall(r"#[0-9a-fA-F]{6}\b", path.read_text("utf-8")) for path in files}
    assert not {name: colours for name, colours in found.items() if colours}


def test_every_colour_of_the_page_has_a_light_and_a_dark_form():
    written = css_variables()
    assert [f"--{name}: light-dark({light}, {dark})" for name, (light, dark) in PAGE.items()] == written.split("; ")
    used = set(re.findall(r"var\(--(\w+)", (PACKAGE / "views/html/page.css").read_text("utf-8")))
    assert used - {"s", "scale", "sans", "serif"} == set(PAGE)


def test_letters_can_be_read():
    for ground in ("paper", "wash"):
        for scheme in (0, 1):
            assert contrast(PAGE["ink"][scheme], PAGE[ground][scheme]) > 7
            assert contrast(PAGE["soft"][scheme], PAGE[ground][scheme]) > 4.5


def test_scales_darken_away_from_0():
    for scale in (ABOVE, BELOW[::-1]):
        bright = [luminance(colour) for colour in scale]
        assert bright == sorted(bright, reverse=True)
    assert rgb(BLUE)[2] > rgb(BLUE)[0]
    assert rgb(ORANGE)[0] > rgb(ORANGE)[2]


def test_tints_lie_between_white_and_the_colour():
    assert tint(BLUE, 0) == "#ffffff"
    assert tint(BLUE, 1) == BLUE
