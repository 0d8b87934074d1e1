"""The pool view: it shows recorded steps and nothing else, by mouse, by keyboard, and for those who can't see it."""

import numpy as np
import pytest

from kvlab.accounting import SHARES
from kvlab.paths import ROOT
from kvlab.publish.check.packed import unpack
from kvlab.publish.page.pool_view import pool_view
from kvlab.publish.page.render import render
from kvlab.raw import RawRun
from tests.browser.conftest import SECTION

SHOWN = """() => [...document.querySelectorAll(".pool")].map((side) => ({
  arm: side.querySelector("select").value,
  step: side.dataset.step,
  status: side.querySelector(".pool-status").textContent,
  shares: [...side.querySelectorAll("dd")].map((one) => one.textContent),
}))"""


def set_slider(page, value):
    page.locator("#pool-slider").evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", value)


def test_it_opens_on_the_workload_that_shows_paging(open_page):
    page = open_page()
    assert page.locator("#pool-workload").input_value() == "pressured"
    assert [side["arm"] for side in page.evaluate(SHOWN)] == ["vllm-contiguous", "vllm-paged"]


@pytest.mark.parametrize("workload", ["seed", "pressured"])
@pytest.mark.parametrize("arm", ["vllm-contiguous", "vllm-paged"])
def test_the_shares_are_those_of_the_accounting(open_page, run, workload, arm):
    page = open_page()
    page.select_option("#pool-workload", workload)
    page.locator(".pool select").nth(1).select_option(arm)
    page.locator("[name=pool-clock][value=own]").check(force=True)
    raw = RawRun.read(run, workload, arm, 0)
    zero = min(one.arrival_s for one in raw.served)
    times, kept = raw.accounting.t_s - zero, pool_view(raw)["step"]
    for value in (1, 137, 500, 863, 999):
        set_slider(page, value)
        side = page.evaluate(SHOWN)[1]
        step = int(side["step"])
        following = min((times[one] for one in kept if one > step), default=np.inf)
        assert times[step] - 1e-4 <= value / 1000 * (raw.end_s - zero) < following + 1e-4
        expected = [f"{100 * raw.accounting.series(name)[step] / raw.accounting.pool:.1f}%" for name in SHARES]
        assert side["shares"] == expected, (value, step)
        assert side["status"].startswith(
            f"{raw.accounting.holding[step]} running, {raw.accounting.waiting[step]} waiting"
        )


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    """A committed run in which policies reserve a chunk for each request, with its page."""
    root = tmp_path_factory.mktemp("policies") / "opt"
    assert unpack(ROOT / "results" / "reference" / "opt-13b-policies", root) == []
    render(SECTION, root)
    return root


@pytest.mark.parametrize("arm", ["vllm-contiguous", "vllm-pow2", "vllm-oracle"])
def test_a_chunk_that_a_policy_reserves_is_charged_and_drawn_as_one_piece(open_page, policies, arm):
    page = open_page("#lang=en", policies / "report.html")
    page.locator(".pool select").nth(1).select_option(arm)
    page.locator("[name=pool-clock][value=own]").check(force=True)
    accounting = RawRun.read(policies, "closed", arm, 0).accounting
    for value in (100, 400, 700):
        set_slider(page, value)
        side = page.evaluate(SHOWN)[1]
        step = int(side["step"])
        expected = [f"{100 * accounting.series(name)[step] / accounting.pool:.1f}%" for name in SHARES]
        assert side["shares"] == expected, (value, step)
    if arm == "vllm-contiguous":  # pieces of 2,048 slots, 4 rows of 32 cells each
        canvas, seen = page.locator(".pool canvas").nth(1), []
        for row in range(28):
            box = canvas.bounding_box()
            rows = [
                canvas.hover(position={"x": x * box["width"], "y": (row + 0.5) * box["height"] / 31})
                or page.locator("#pool-request").text_content().split("·")[1].split(":")[1].split()[1]
                for x in (0.02, 0.98)
            ]
            assert rows[0] == rows[1], row
            seen.append(rows[0])
        assert all(len(set(seen[at : at + 4])) == 1 for at in range(0, 28, 4))


def test_every_arm_can_stand_on_either_side(open_page):
    page = open_page()
    page.select_option("#pool-workload", "seed")
    arms = page.locator(".pool select").first.locator("option").all_text_contents()
    assert len(arms) == 5
    for arm in arms:
        page.locator(".pool select").first.select_option(arm)
        set_slider(page, 300)
        shares = page.evaluate(SHOWN)[0]["shares"]
        assert sum(float(text.rstrip("%")) for text in shares) == pytest.approx(100, abs=0.3)


def test_the_keyboard_moves_it(open_page):
    page = open_page()
    slider = page.locator("#pool-slider")
    slider.focus()
    page.keyboard.press("Home")
    assert slider.input_value() == "0"
    spoken = slider.get_attribute("aria-valuetext")
    page.keyboard.press("PageUp")
    assert int(slider.input_value()) > 0
    assert slider.get_attribute("aria-valuetext") != spoken
    assert "vllm-paged" in spoken
    page.keyboard.press("End")
    assert "finished" in page.locator(".pool-status").first.text_content()
    page.keyboard.press("Home")
    page.locator("#pool-forward").focus()
    before = page.locator("#pool-time").text_content()
    page.keyboard.press("Enter")
    assert page.locator("#pool-time").text_content() != before
    page.locator("#pool-back").click()
    assert page.locator("#pool-time").text_content() == before


def test_play_moves_and_pause_stops(open_page):
    page = open_page()
    page.locator("#pool-slider").focus()
    page.keyboard.press("Home")
    page.locator("#pool-play").focus()
    page.keyboard.press("Space")
    page.wait_for_timeout(600)
    assert int(page.locator("#pool-slider").input_value()) > 20
    page.keyboard.press("Space")
    stood = page.locator("#pool-slider").input_value()
    page.wait_for_timeout(200)
    assert page.locator("#pool-slider").input_value() == stood
    assert page.locator("#pool-live").text_content()


def test_nothing_moves_by_itself_and_reduced_motion_is_obeyed(open_page):
    page = open_page(reduced_motion="reduce")
    page.locator("#pool-slider").focus()
    page.keyboard.press("Home")
    page.wait_for_timeout(200)
    assert page.locator("#pool-slider").input_value() == "0"
    page.locator("#pool-play").click()
    seen, began = set(), page.evaluate("performance.now()")
    for _ in range(12):
        page.wait_for_timeout(100)
        seen.add(page.locator("#pool-slider").input_value())
    seconds = (page.evaluate("performance.now()") - began) / 1000
    assert 2 <= len(seen) <= 2 + seconds / 0.7  # still frames, not an animation


def test_a_request_is_followed(open_page):
    page = open_page()
    page.select_option("#pool-follow", "3")
    set_slider(page, 100)
    assert "equest 3" in page.locator("#pool-request").text_content()
    assert page.locator("#pool-hint").is_hidden()
    page.select_option("#pool-follow", "")
    page.locator(".pool canvas").nth(1).hover(position={"x": 8, "y": 8})
    assert "tokens in" in page.locator("#pool-request").text_content()


def test_the_pool_view_has_a_text_description(open_page):
    page = open_page()
    label = page.locator(".pool canvas").nth(1).get_attribute("aria-label")
    assert "vllm-paged" in label
    assert "token states" in label
    page.locator("#pool details summary").click()
    assert page.locator("#pool details table").is_visible()


def test_the_grid_is_sharp_and_fills_its_place(open_page):
    for width, ratio in ((1280, 1), (390, 3)):
        page = open_page(viewport={"width": width, "height": 900}, device_scale_factor=ratio)
        for one in page.evaluate(
            """() => [...document.querySelectorAll(".pool")].map((e) => {
                 const width = (one) => one.getBoundingClientRect().width, canvas = e.querySelector("canvas");
                 const box = width(e.querySelector(".pool-box"));
                 return [box * devicePixelRatio, canvas.width, width(canvas), box, e.clientWidth];
               })"""
        ):
            pixels, drawn, shown, place, whole = one
            assert abs(pixels - drawn) <= 1
            assert shown == pytest.approx(place)
            assert place == pytest.approx(whole, abs=1)


def test_a_step_draws_what_changed_and_leaves_the_picture_of_a_whole_drawing(open_page):
    drawn = """(count) => {
      const pen = CanvasRenderingContext2D.prototype, fill = pen.fillRect;
      window.filled = 0;
      pen.fillRect = function (...box) { window.filled += 1; fill.apply(this, box); };
    }"""
    picture = "() => [...document.querySelectorAll('.pool canvas')].map((one) => one.toDataURL())"
    for width, order in ((1280, "place"), (390, "request")):
        page = open_page("#lang=en", viewport={"width": width, "height": 900})
        page.locator(f"[name=pool-order][value={order}]").check(force=True)
        set_slider(page, 300)
        page.evaluate(drawn)
        whole, steps = 0, []
        for _ in range(6):
            page.evaluate("window.filled = 0")
            page.locator("#pool-forward").click()
            steps.append(page.evaluate("window.filled"))
            seen = page.evaluate(picture)
            page.evaluate("window.filled = 0")
            page.evaluate("document.dispatchEvent(new Event('kvlab:theme'))")
            whole = page.evaluate("window.filled")
            assert page.evaluate(picture) == seen
        if order == "place":
            assert sorted(steps)[3] < whole / 3, (steps, whole)


def test_stepping_forward_shows_the_next_step_of_a_side_each_time(open_page):
    page = open_page()
    set_slider(page, 0)
    before = -1
    for _ in range(60):
        page.locator("#pool-forward").click()
        now = sum(int(side["step"].replace(",", "")) for side in page.evaluate(SHOWN))
        assert now > before
        before = now


def test_its_numbers_are_those_of_the_step_when_it_is_paused(open_page):
    page = open_page()
    set_slider(page, 0)
    page.locator("#pool-play").click()
    page.wait_for_timeout(350)
    page.locator("#pool-play").click()
    playing = page.evaluate(SHOWN)
    page.locator("#pool-forward").click()
    page.locator("#pool-back").click()
    assert [side["step"] for side in page.evaluate(SHOWN)] == [side["step"] for side in playing]
    assert page.evaluate(SHOWN) == playing


def test_on_a_phone_the_pools_stand_one_above_the_other_and_answer_to_touch(open_page):
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=3)
    first, second = (page.locator(".pool").nth(i).bounding_box() for i in (0, 1))
    assert second["y"] >= first["y"] + first["height"]
    page.locator(".pool canvas").nth(1).tap(position={"x": 12, "y": 12})
    assert "tokens in" in page.locator("#pool-request").text_content()
    assert page.locator("#pool-follow").input_value() != ""


def test_by_request_each_request_s_blocks_lie_side_by_side(open_page):
    page = open_page()
    page.locator("[name=pool-order][value=request]").check(force=True)
    canvas = page.locator(".pool canvas").nth(1)
    box, seen = canvas.bounding_box(), []
    for row in range(6):
        for column in range(8):
            canvas.hover(position={"x": (column + 0.4) * box["width"] / 8, "y": (row + 0.4) * box["height"] / 6})
            told = page.locator("#pool-request").text_content().split("·")
            seen.append(told[1].split(":")[1].strip().split()[1] if len(told) > 1 and "tokens in" in told[1] else None)
    runs = [one for one, before in zip(seen, [None, *seen], strict=False) if one and one != before]
    assert len(runs) == len(set(runs)) > 2  # a request whose bar has ended has no other bar later
    assert [int(one) for one in runs] == sorted(int(one) for one in runs)


def test_following_a_request_goes_to_when_it_runs(open_page):
    page = open_page()
    last = page.locator("#pool-follow option").last.get_attribute("value")
    page.locator("#pool-slider").evaluate("(e) => { e.value = 0; e.dispatchEvent(new Event('input')); }")
    page.select_option("#pool-follow", last)
    assert "tokens in" in page.locator("#pool-request").text_content()
    assert int(page.locator("#pool-slider").input_value()) > 0
    page.locator("#pool-previous").click()
    assert page.locator("#pool-follow").input_value() == str(int(last) - 1)


def test_a_workload_chosen_anywhere_is_chosen_in_the_pool_view_too(open_page):
    page = open_page()
    page.locator("#time [data-set-workload=seed]").click()
    assert page.locator("#pool-workload").input_value() == "seed"
    page.select_option("#pool-workload", "pressured")
    assert page.locator("#slots [data-workload=pressured]").is_visible()
    assert page.locator("#slots [data-workload=seed]").is_hidden()
