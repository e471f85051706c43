"""The explorers in a browser, from a file: their arithmetic is Python's, and keys move them."""

import json
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from bs4 import BeautifulSoup
from tokenizers import AddedToken

from lib import files, lattice
from lib.analysis import centres, clock, explorers, simulation, snowball
from lib.extraction import merging, reachability, specimens, vocabulary
from tests.test_browser import PATIENCE, chromium  # noqa: F401

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("press")]

# Waits for the explorer, runs `checks`, and leaves what they return in the page.
HARNESS = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>explorer</title>
<body>%(element)s<pre id="seen"></pre><script>
const pause = (ms) => new Promise((go) => setTimeout(go, ms));
const press = (node, key) =>
  node.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const tell = (node, kind) => node.dispatchEvent(new Event(kind));
const enter = (node, value) => { node.value = value; tell(node, "input"); tell(node, "change"); };
// the output's words, once they are settled; a pointer at shares of a picture's width and height
const said = async () => {
  await pause(500);
  return document.querySelector("output").textContent;
};
const point = (node, kind, x, y = 0) => {
  const { left, top, width, height } = node.getBoundingClientRect();
  node.setPointerCapture = () => {};
  node.hasPointerCapture = () => true;
  node.dispatchEvent(new PointerEvent(kind,
    { pointerId: 1, clientX: left + x * width, clientY: top + y * height, bubbles: true }));
};
const wrong = [];
addEventListener("error", (event) => wrong.push(event.message));
addEventListener("unhandledrejection", (event) => wrong.push(String(event.reason)));
(async () => {
  const root = document.querySelector(".explorer"), given = %(given)s;
  let answer;
  try {
    while (!root.explorer && !wrong.length) await pause(20);
    const explorer = root.explorer;
    const find = (words) => [...root.querySelectorAll("button, label, [aria-label]")].find((node) =>
      (node.getAttribute("aria-label") ?? node.textContent).startsWith(words));
    answer = await (async () => { %(checks)s })();
  } catch (error) { wrong.push(String(error.stack)); }
  document.querySelector("#seen").textContent = JSON.stringify({ answer, wrong });
})();
</script>"""


@pytest.fixture
def look(chromium, tmp_path):  # noqa: F811
    """Shows an explorer from the disk, without a network, and gives what the checks return."""

    def look(name: str, data: dict, checks: str, given=None):
        element = explorers.element(name, "An explorer", data)
        filled = {"element": element, "checks": checks, "given": json.dumps(given)}
        file = tmp_path / f"{name}.html"
        file.write_text(HARNESS % filled, encoding="utf-8")
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=60000"]
        command += ["--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND"]
        command += ["--dump-dom", file.as_uri()]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        seen = json.loads(BeautifulSoup(shown.stdout, "html.parser").find(id="seen").string)
        assert seen["wrong"] == []
        return seen["answer"]

    return look


def test_no_file_of_the_explorers_ends_its_element_or_asks_the_network():
    for file in sorted(Path(explorers.FOLDER).iterdir()):
        text = file.read_text(encoding="utf-8")
        for word in ("</script", "<!--", "<table", "```", "innerHTML", "eval(", "import("):
            assert word not in text, f"{file.name}: {word}"
        assert text.count("http") == text.count("http://www.w3.org/2000/svg"), file.name


def test_foreign_words_stay_words():
    element = explorers.element("bits", '"><img src=x>', {"text": "</script><img src=x>"})
    page = BeautifulSoup(element, "html.parser")
    assert not page("img") and page.section["aria-label"] == '"><img src=x>'
    assert json.loads(page.script.string) == {"text": "</script><img src=x>"}


def test_a_page_depends_on_the_scripts_that_it_holds(monkeypatch):
    monkeypatch.setattr(files, "noted", {})
    explorers.element("bits", "x", {})
    assert {"../explorers/bits.js", "../explorers/lattice.js"} <= set(files.noted)
    assert files.ABSENT not in files.noted.values()


# ---------------------------------------------------------------- bits
BITS = {"start": 0x3C76, "update": 4e-5}


def test_bits_are_pythons_on_every_pattern(look):
    patterns = np.arange(1 << 16, dtype=np.uint16)
    rng = np.random.default_rng(42)
    words = rng.integers(0, 1 << 32, 20_000, np.uint32)
    words[:2000] &= 0xFFFF0000  # on the lattice
    words[1000:3000] |= 0x8000  # ties
    floats = words.view(np.float32)
    words, floats = words[~np.isnan(floats)], floats[~np.isnan(floats)]
    random = rng.integers(0, 1 << 16, len(words))
    given = {"words": words.tolist(), "random": random.tolist()}
    seen = look(
        "bits",
        BITS,
        """
        const { lattice } = explorer, all = [...Array(65536).keys()];
        const float = new Float32Array(1), word = new Uint32Array(float.buffer);
        const bits = (x) => { float[0] = x; return word[0]; };
        const from = (w) => { word[0] = w; return float[0]; };
        return {
          ordinal: all.map(lattice.ordinal),
          up: all.map((u) => lattice.neighbour(u, 1)),
          down: all.map((u) => lattice.neighbour(u, -1)),
          value: all.map((u) => Number.isNaN(lattice.value(u)) ? null : bits(lattice.value(u))),
          ulp: all.map((u) => Number.isNaN(lattice.ulp(u)) ? null : bits(lattice.ulp(u))),
          nearest: given.words.map((w) => lattice.roundNearest(from(w))),
          stochastic: given.words.map((w, i) => lattice.roundStochastic(from(w), given.random[i])),
          back: all.map((u) => lattice.fromOrdinal(lattice.ordinal(u))),
          moved: given.words.map((w, i) => bits(lattice.moved(i, from(w) % 1))),
        };
        """,
        given,
    )

    def as_words(x):
        return [None if np.isnan(v) else int(v.view(np.uint32)) for v in x]

    assert seen["ordinal"] == lattice.ordinal(patterns).tolist()
    assert seen["up"] == lattice.neighbour_up(patterns).tolist()
    assert seen["down"] == lattice.neighbour_down(patterns).tolist()
    assert seen["value"] == as_words(lattice.value(patterns))
    assert seen["ulp"] == as_words(lattice.ulp(patterns))
    assert seen["nearest"] == lattice.round_nearest(floats).tolist()
    cut = ((words.astype(np.int64) + random) >> 16).tolist()  # as the kernel adds and cuts
    assert seen["stochastic"] == cut
    line = np.abs(lattice.ordinal(patterns)) <= lattice.INFINITY
    back = lattice.from_ordinal(lattice.ordinal(patterns[line]))
    assert [seen["back"][u] for u in np.flatnonzero(line)] == back.tolist()
    small = np.fmod(floats, np.float32(1))
    start = lattice.value(np.arange(len(words), dtype=np.uint16))
    with np.errstate(over="ignore", invalid="ignore"):
        sums = start + np.where(np.isfinite(small), small, np.float32(np.nan))
    same = np.isfinite(sums)
    assert np.array_equal(np.array(seen["moved"], np.uint32)[same], sums.view(np.uint32)[same])


def test_a_number_is_dragged_over_the_edge_and_its_update_is_lost(look):
    seen = look(
        "bits",
        BITS,
        """
        const line = root.querySelector("svg"), before = await said();
        press(line, "End");                       // to the power of two
        const edge = explorer.state.u;
        press(line, "PageUp");
        const after = await said();
        press(line, "Home"); press(line, "ArrowLeft");
        const below = explorer.state.u;
        find("Apply 100").click();
        const walked = await said(), stuck = explorer.state.u;
        point(line, "pointerdown", 0.5);
        point(line, "pointermove", 0.75);
        const dragged = explorer.state.u;
        const sign = root.querySelector(".fields button");
        sign.click();
        const flipped = explorer.state.u, pressed = sign.getAttribute("aria-pressed");
        enter(root.querySelector("input"), "0.37");
        const typed = explorer.state.u;
        enter(root.querySelector("input"), "cheese");
        const refused = await said();
        return { before, edge, after, below, stuck, walked, dragged, flipped, pressed, typed,
          refused, now: Number(line.getAttribute("aria-valuenow")) };
        """,
    )
    edge = int(lattice.round_nearest(np.float32(2.0**-6)))
    assert "1 step away" in seen["before"] and "lost" in seen["after"]
    assert seen["edge"] == seen["stuck"] == edge and seen["below"] == edge - 1
    assert "it went 1 step up" in seen["walked"]
    assert seen["dragged"] > edge and seen["flipped"] == seen["dragged"] | 0x8000
    assert seen["pressed"] == "true"
    assert seen["typed"] == seen["now"] == int(lattice.round_nearest(np.float32(0.37)))
    assert "cheese" in seen["refused"]


# ---------------------------------------------------------------- clock
def clock_data():
    stage = {"peak": 1e-3, "decay": 0.1, "end": 1e-4, "warmup": 20, "warmup_from": 1e-5}
    stage |= {"horizon": 0, "steps": 1000}
    shapes = [{**stage, "shape": shape} for shape in clock.Shape]
    recipes = [[shape] for shape in shapes] + [
        [shapes[2], {**stage, "shape": "linear", "horizon": 1500, "warmup": 0}],
    ]
    models = [
        {
            "name": f"model {i}",
            "stages": stages,
            "exempt": i == 1,
            "sourced": i % 2 == 0,
            "dim": 64,
            "sigma": 0.02,
            "initial": 0.16,
            "due": 0.1 * i,
            "measured": 0.16 * np.exp(-0.1 * i),
        }
        for i, stages in enumerate(recipes)
    ]
    return {"steps": 1000, "peak": 1e-3, "decay": 0.1, "sigma": 0.02, "dim": 64, "models": models}


def test_the_clock_sums_as_python_does_for_every_shape(look):
    data = clock_data()
    seen = look(
        "clock",
        data,
        "return data.models.map((model) => [...explorer.ofRecipe(model).sums]);".replace(
            "data.models", 'JSON.parse(root.querySelector("script").textContent).models'
        ),
    )
    for model, sums in zip(data["models"], seen, strict=True):
        stages = tuple(clock.Stage(**stage) for stage in model["stages"])
        wanted = clock.Recipe(stages, exempt=model["exempt"]).exposure()
        assert len(sums) == len(wanted)
        np.testing.assert_allclose(sums, wanted, rtol=1e-12, atol=0)


def test_a_schedule_is_drawn_by_keys_and_by_hand(look):
    seen = look(
        "clock",
        clock_data(),
        """
        const line = root.querySelector("svg[role=slider]"), select = root.querySelector("select");
        const totals = [explorer.state.result.total], began = await said();
        press(line, "End"); press(line, "PageUp");
        totals.push(explorer.state.result.total);
        const drawn = select.value, here = line.getAttribute("aria-valuetext");
        point(line, "pointerdown", 0);
        point(line, "pointermove", 1);
        totals.push(explorer.state.result.total);
        enter(root.querySelectorAll("input")[1], "0");
        totals.push(explorer.state.result.total);
        enter(root.querySelectorAll("input")[1], "cheese");
        const refused = await said();
        select.value = "model 2"; select.dispatchEvent(new Event("change"));
        return { totals, drawn, here, began, refused, model: await said() };
        """,
    )
    cosine, raised, full, none = seen["totals"]
    assert 0 < cosine < raised < full and none == 0
    assert full == pytest.approx(1000 * -np.log1p(-1e-4), rel=1e-12)  # the top, at every step
    assert seen["drawn"] == "" and "100\u00a0% of the steps" in seen["here"]
    assert "After 1,000 steps" in seen["began"] and "please" in seen["refused"]
    assert "model 2 has" in seen["model"]


# ---------------------------------------------------------------- snowball
CENTRES = ("qwen3-holes", "qwen3-lattice", "qwen3-rebuilt")


def snowball_data():
    known = {n: {"name": n, "bits": explorers.packed(centres.named(n))} for n in CENTRES}
    return {"sigma": 1.5e-9, "rows": 2221, "seed": 42, "printed": [814, 704], "centres": known}


def test_the_snowballs_cells_are_pythons(look):
    sigmas = [3e-10, 1.5e-9, 2e-8, 3e-7]
    seen = look(
        "snowball",
        snowball_data(),
        """
        const found = {}, known = JSON.parse(root.querySelector("script").textContent).centres;
        for (const [name, { bits }] of Object.entries(known)) {
          const centre = new Float32Array(await explorer.unpack(bits));
          found[name] = given.map((sigma) => explorer.cells(centre, sigma));
        }
        const o = [...Array(4000).keys()].map((i) => 16 * i - 32000);
        return { found, borders: o.map(explorer.border) };
        """,
        sigmas,
    )
    some = 16 * np.arange(4000) - 32_000
    borders = np.array(seen["borders"], np.float64)
    assert np.array_equal(borders, snowball.borders(some))  # to the last bit
    for name in CENTRES:
        for sigma, table in zip(sigmas, seen["found"][name], strict=True):
            wanted = snowball.cells(centres.named(name), scale=sigma)
            at = {int(dim): k for k, dim in enumerate(wanted.dim)}
            assert {one["dim"] for one in table} == set(at)
            for one in table:
                k = at[one["dim"]]
                assert (one["low"], one["wild"]) == (wanted.low[k], wanted.wild[k])
                assert one["leave"] == pytest.approx(1 - wanted.peak[k], abs=2e-15, rel=1e-12)
                cells = wanted.probability[k][: len(one["probability"])]
                np.testing.assert_allclose(one["probability"], cells, rtol=1e-9, atol=1e-15)
            leave = [one["leave"] for one in table]
            assert leave == sorted(leave, reverse=True)


def test_the_snowballs_are_pythons_within_sampling_error(look):
    trials, settings = 300, [(1.5e-9, 2221), (6e-9, 500), (2e-8, 2221), (2e-7, 400)]
    seen = look(
        "snowball",
        snowball_data(),
        """
        const { centre } = explorer.state, random = explorer.generator(7);
        return given.settings.map(([sigma, rows]) => {
          const table = explorer.cells(centre, sigma), of = [];
          for (let i = 0; i < given.trials; i++) {
            const { holes, alone } = explorer.snowball(centre, sigma, rows, table, random);
            of.push([holes.length, alone, holes[0] ?? 1, holes.reduce((a, b) => a + b, 0) + alone]);
          }
          return of;
        });
        """,
        {"trials": trials, "settings": settings},
    )
    centre = centres.named("qwen3-holes")
    for (sigma, rows), drawn in zip(settings, seen, strict=True):
        wanted = simulation.simulate(centre, scale=sigma, rows=rows, trials=1000, varying=False)
        theirs = np.stack([wanted.holes, wanted.singletons, wanted.largest], axis=1)
        ours = np.array(drawn)
        assert (ours[:, 3] == rows).all()
        error = np.sqrt(theirs.var(axis=0) * (1 / trials + 1 / len(theirs))) + 1e-12
        assert (np.abs(ours[:, :3].mean(axis=0) - theirs.mean(axis=0)) < 4.5 * error + 1e-9).all()
        ratio = (ours[:, 0].std() + 0.05) / (theirs[:, 0].std() + 0.05)
        assert 0.75 < ratio < 1.35


def test_snowballs_are_drawn_by_hand(look):
    seen = look(
        "snowball",
        snowball_data(),
        """
        const first = await said();
        find("Draw another").click();
        const two = explorer.state.counts.length;
        enter(root.querySelector("input[type=range]"), "-6.5");
        const wide = await said(), all = root.querySelectorAll("input");
        enter(all[2], "0");
        const refused = await said();
        enter(all[2], "300");
        return { first, two, wide, refused, rows: explorer.state.rows, last: await said(),
          labels: [...root.querySelectorAll("svg")].map((svg) => svg.getAttribute("aria-label")) };
        """,
    )
    assert "One snowball of 2,221 rows" in seen["first"] and seen["two"] == 2
    assert seen["wide"] != seen["first"] and "please" in seen["refused"]
    assert seen["rows"] == 300 and "300 rows" in seen["last"] and all(seen["labels"])


# ---------------------------------------------------------------- a token's life
def life_data():
    rng = np.random.default_rng(42)
    frames = rng.integers(0, 1 << 16, (13, 5, 2)).astype(np.uint16)
    frames[frames & 0x7F80 == 0x7F80] ^= 0x4000  # finite
    frames[8:, 1] = frames[8, 1]
    still = np.zeros((12, 3), bool)
    still[8:, 1] = still[3, 0] = True
    curve = rng.random(13).round(3).tolist()
    curves = {"still": curve[1:], "frozen": curve[1:], "loss": curve[1:], "radius": curve}
    data = {"steps": 12, "dims": [3, 5], "dead": 3, "all": 3, "ids": [7, 8, 9, 1, 2]}
    data |= {"names": ["a", "<b>", "c", "d", "e"], "last": [12, 8, 12], "curves": curves}
    data |= {"frames": explorers.film(frames), "still": explorers.packed(np.packbits(still))}
    return data, frames, still


def test_every_frame_of_the_film_arrives_bit_for_bit(look):
    data, frames, still = life_data()
    seen = look(
        "life",
        data,
        """
        const rows = [0, 1, 2, 3, 4], steps = [...Array(13).keys()];
        const of = (what) => steps.map((t) => rows.map((row) => what(row, t)));
        return { frames: of((row, t) => [0, 1].map((d) => explorer.pattern(row, d, t))),
          kinds: of(explorer.kind) };
        """,
    )
    assert np.array_equal(np.array(seen["frames"]), frames)
    for t in range(13):
        for row in range(5):
            wanted = "live" if row > 2 else "frozen" if t > data["last"][row] else "moving"
            if wanted == "moving" and t and still[t - 1, row]:
                wanted = "still"
            assert seen["kinds"][t][row] == wanted


def test_the_film_is_stepped_and_followed(look):
    seen = look(
        "life",
        life_data()[0],
        """
        const first = await said(), [step, zoom] = root.querySelectorAll("input[type=range]");
        enter(step, "9"); enter(zoom, "3");
        const select = root.querySelector("select");
        select.value = "1"; select.dispatchEvent(new Event("change"));
        const last = await said(), canvas = root.querySelector("canvas");
        return { first, last, label: canvas.getAttribute("aria-label"), high: canvas.clientHeight,
          option: select.selectedOptions[0].textContent };
        """,
    )
    assert "Before the first step" in seen["first"] and "After step 9 of 12" in seen["last"]
    assert "“<b>” (id 8)" in seen["last"] and "frozen since step 8" in seen["last"]
    assert (
        "after step 9" in seen["label"] and seen["high"] >= 300 and seen["option"] == "<b> (id 8)"
    )


# ---------------------------------------------------------------- tokens
@cache
def token_data():
    words, found = vocabulary.open("qwen3"), reachability.records("qwen3")
    matrix = explorers.rows(specimens.open("qwen2.5-coder-0.5b"))
    known = {"text": "Hello", "first": 123_828, "examples": {"one": "1"}, "matrix": matrix}
    return known | explorers.tokens(words, found) | {"printed": explorers.printed()}


def some_texts(words: vocabulary.Vocabulary, count: int) -> list[str]:
    """Texts of many kinds: tokens put together, single characters, digits, spaces, apostrophes."""
    rng = np.random.default_rng(42)
    blocks = [(0x20, 0x7F), (0xA0, 0x24F), (0x300, 0x370), (0x370, 0x590), (0x590, 0x700),
              (0x900, 0xDFF), (0xE00, 0xF00), (0x1100, 0x1200), (0x1E00, 0x2400), (0x3040, 0x3100),
              (0x4E00, 0xA000), (0xAC00, 0xD7A4), (0xF900, 0xFB00), (0x1F300, 0x1F700),
              (0x20000, 0x2A6E0)]  # fmt: skip
    joints = ["", " ", "  ", "\n", "\r\n\n", "\t", "'s", "'LL", "'ſ", "123", "٣", "…", "!?", "�"]
    joints += ["\u200d", "\ufeff", "\u00a0", "\u3000", "\x85", "\u1680", "<|im_end|>", "<think>"]
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(rng.integers(1, 8)):
            kind = rng.integers(4)
            if kind == 0:
                parts.append(words.shown(int(rng.integers(len(words.tokens)))))
            elif kind == 1:
                low, high = blocks[rng.integers(len(blocks))]
                letters = [chr(c) for c in rng.integers(low, high, rng.integers(1, 9))]
                parts += [c for c in letters if reachability.assigned(c)]
            else:
                parts.append(joints[rng.integers(len(joints))])
        texts.append("".join(parts))
    return [*texts, "", "a" * 3000, "ที่" * 500, "1234567890" * 20, "don't DON'T we'Ve"]


def test_the_page_encodes_as_the_tokenizers_library_does(look):
    words = vocabulary.open("qwen3")
    texts = some_texts(words, 4000)
    tokenizer = merging.as_tokenizer(words)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in words.added.values()])
    wanted = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    assert len({id for ids in wanted for id in ids}) > 8_000
    data = token_data()
    assert len(explorers.element("tokens", "x", data)) < 1_500_000
    seen = look(
        "tokens",
        data,
        """
        const some = given.ids.map((id) => [explorer.bytesOf(id).join(), explorer.norms[id],
          explorer.reach[id], explorer.script[id], explorer.isDead(id)]);
        return { some, encoded: given.texts.map(explorer.encode), size: explorer.merges.size };
        """,
        {"texts": texts, "ids": list(range(0, len(words.tokens), 50))},
    )
    different = [t for t, a, b in zip(texts, seen["encoded"], wanted, strict=True) if a != b]
    assert different == []
    found, matrix = reachability.records("qwen3"), specimens.open("qwen2.5-coder-0.5b")
    for record, told in zip(found[: len(words.tokens) : 50], seen["some"], strict=True):
        own, norm, reach, script, dead = told
        assert own == ",".join(map(str, record.bytes))
        assert abs(norm * explorers.UNIT - matrix.norms[record.id]) <= explorers.UNIT
        assert data["classes"][reach] == str(record.reach) and dead == record.reach.dead
        assert data["scripts"][script] == record.script
    assert seen["size"] == len(words.tokens) - 256


def test_a_token_is_searched_chosen_and_linked_to(look):
    seen = look(
        "tokens",
        token_data(),
        """
        const text = root.querySelector("textarea");
        enter(text, "<img src=x onerror=alert(1)> ที่");
        const counted = await said(), images = root.querySelectorAll("img").length;
        const [kind, script] = root.querySelectorAll("select");
        script.value = [...script.options].find((o) => o.textContent === "Thai").value;
        script.dispatchEvent(new Event("change"));
        const thai = explorer.state.hits.length;
        enter(root.querySelector("input[type=search]"), "123828");
        const first = (await said(), explorer.state.hits[0]);
        root.querySelector(".hits .chip").click();
        const card = root.querySelector(".card").textContent, chosen = await said();
        location.hash = "#token-151700";
        await pause(500);
        const phantom = root.querySelector(".card").textContent;
        location.hash = "#token-1e9";
        await pause(300);
        return { counted, images, thai, first, card, chosen, phantom, id: explorer.state.id };
        """,
    )
    assert "words" in seen["counted"] and seen["images"] == 0
    dead = [r for r in reachability.records("qwen3") if r.reach.dead and r.script == "Thai"]
    assert seen["thai"] == len(dead) and seen["first"] == 123_828
    assert "split by the pre-tokenizer" in seen["card"] and "split" in seen["chosen"]
    assert "not at hand" in seen["card"] and "phantom row" in seen["phantom"]
    assert seen["id"] == 151_700


# ---------------------------------------------------------------- all of them
MADE = {
    "tokens": token_data,
    "bits": lambda: BITS,
    "life": lambda: life_data()[0],
    "snowball": snowball_data,
    "clock": clock_data,
}


@pytest.mark.parametrize("name", MADE)
def test_every_control_has_a_name_and_fits_a_phone(look, name):
    seen = look(
        name,
        MADE[name](),
        """
        document.body.style.cssText = "margin: 0; width: 390px";
        await pause(500);
        const all = (selector) => [...root.querySelectorAll(selector)];
        const start = (nodes) => nodes.map((node) => node.outerHTML.slice(0, 200));
        const spoken = (node) => node.getAttribute("aria-label") ||
          (node.labels?.[0] ?? node).textContent.trim();
        const controls = all("input, select, textarea, button, [role=slider], [tabindex='0']");
        const wide = all(":not(.hits *, .words *, .trace *, svg *)")
          .filter((node) => node.getBoundingClientRect().right > 391);
        return { controls: controls.length, wide: start(wide),
          named: root.getAttribute("aria-label"),
          bare: start([...controls, ...all("[role=img]")].filter((node) => !spoken(node))),
          live: all("output[aria-live=polite]").length };
        """,
    )
    assert seen["controls"] >= 4 and seen["live"] == 1 and seen["named"]
    assert seen["bare"] == [] and seen["wide"] == []
