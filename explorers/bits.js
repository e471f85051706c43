// One number on the bf16 lattice: its bits, its neighbours, and what an update does to it.

const { value, ulp, ordinal, fromOrdinal, neighbour, exponent, mantissa, INFINITY } = lattice;
const HEIGHT = 150, LINE = 92; // of the picture, and where the number line runs in it
const NAMES = { sign: [15, 15], exponent: [14, 7], mantissa: [6, 0] };

const state = { u: data.start, update: data.update, up: true, rule: "nearest", middle: 0, half: 1, note: "" };
const isFinite16 = (u) => exponent(u) < 255;
const hex = (u) => u.toString(16).toUpperCase().padStart(4, "0");
const shown = (u) => number(value(u), 6);
const signed = () => (state.up ? state.update : -state.update);
const power = (x) => `2${superscript(Math.round(Math.log2(Math.abs(x))))}`;

// ---- the bits
const buttons = [];
const fields = make("div", { class: "fields" }, ...Object.entries(NAMES).map(([name, [first, last]]) => {
  const row = make("div", { role: "group", "aria-label": `${name} bits` });
  for (let bit = first; bit >= last; bit--) {
    const button = make("button", {
      type: "button", tabindex: bit === 15 ? 0 : -1,
      "aria-label": first === last ? name : `${name}, bit ${bit - last}`,
      onclick: () => { focusBit(15 - bit); set(state.u ^ (1 << bit)); },
      onkeydown: (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (!step) return;
        event.preventDefault();
        focusBit(clamp(15 - bit + step, 0, 15)).focus();
      },
    });
    buttons.push(button);
    row.append(button);
  }
  const named = make("span", { class: "soft", "aria-hidden": "true" }, name);
  return make("div", {}, named, row);
}));

function focusBit(at) {
  buttons.forEach((button, i) => button.setAttribute("tabindex", i === at ? 0 : -1));
  return buttons[at];
}

// ---- the number, and what belongs to it
const entry = make("input", {
  type: "text", size: 16, inputmode: "text", autocomplete: "off", spellcheck: "false",
  onchange: () => take(entry, (x) => set(lattice.nearest(x))),
});
const facts = ["pattern", "as a formula", "ordinal", "ULP", "one step down", "one step up"].map(fact);
const stepper = (words, step) =>
  make("button", { type: "button", onclick: () => set(neighbour(state.u, step)) }, words);

function take(input, use) {
  const x = typed(input.value);
  const good = Number.isFinite(x);
  input.setAttribute("aria-invalid", String(!good));
  if (good) use(x);
  else say(`“${input.value}” is no number: write one as 0.37, 1e-9 or 2^-6.`);
}

// ---- the update
const size = slider("size", { min: -9, max: 1, step: 0.01 }, (power10) => {
  state.update = Number((10 ** power10).toPrecision(3));
  set(state.u);
});
const exact = make("input", {
  type: "text", size: 9, autocomplete: "off", spellcheck: "false",
  onchange: () => take(exact, (x) => {
    if (x < 0) { state.up = false; direction.querySelectorAll("input")[1].checked = true; }
    state.update = Math.abs(x);
    set(state.u);
  }),
});
const direction = choice("direction", "", { up: "add", down: "take away" }, "up", (to) => {
  state.up = to === "up";
  set(state.u);
});
direction.setAttribute("aria-label", "add the update or take it away");
const rule = choice("rule", "rounding", { nearest: "to nearest", stochastic: "stochastic" }, "nearest",
  (to) => { state.rule = to; set(state.u); });
const apply = (times) => make("button", { type: "button", onclick: () => repeat(times) },
  times === 1 ? "Apply" : `Apply ${times} times`);

function stored(u, update) {
  const sum = lattice.moved(u, update);
  if (state.rule === "nearest") return lattice.roundNearest(sum);
  return lattice.roundStochastic(sum, Math.floor(Math.random() * 0x10000));
}

function repeat(times) {
  const from = state.u, wanted = value(from) + times * signed();
  let u = from;
  for (let i = 0; i < times; i++) u = stored(u, signed());
  const steps = ordinal(u) - ordinal(from);
  const moved = steps ? `${whole(Math.abs(steps))} step${Math.abs(steps) === 1 ? "" : "s"} ${steps > 0 ? "up" : "down"}` : "not a step";
  set(u, `${times === 1 ? "One update" : `${times} updates`} of ${number(signed(), 3)}: it went ${moved}. ` +
    `Exact arithmetic would be at ${number(wanted, 6)}. `);
}

// ---- the number line
const picture = draw("svg", {
  tabindex: 0, role: "slider", "aria-label": "the number on its line; arrow keys step, Home and End go to the binade's edges",
  "aria-valuemin": -INFINITY, "aria-valuemax": INFINITY,
});

function fit(always) {
  if (!isFinite16(state.u)) return;
  const v = value(state.u), gap = ulp(state.u), seen = (2 * state.half) / gap;
  if (always || Math.abs(v - state.middle) > 0.6 * state.half || seen < 20 || seen > 120) {
    state.middle = v;
    state.half = 24 * gap;
  }
}

function paint() {
  const width = picture.clientWidth || 640;
  picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  picture.replaceChildren();
  if (!isFinite16(state.u)) {
    picture.append(draw("text", { x: 12, y: LINE }, "No place on the number line: all exponent bits are set."));
    return;
  }
  const { middle, half, u } = state;
  const at = (x) => ((x - middle) / half / 2 + 0.5) * width;
  const first = ordinal(lattice.nearest(middle - half)), last = ordinal(lattice.nearest(middle + half));

  let path = "", before = -9;
  for (let o = first; o <= last; o++) {
    const x = at(value(fromOrdinal(o)));
    if (x - before < 1.5) continue;
    path += `M${x.toFixed(2)} ${LINE - 9}v18`;
    before = x;
  }
  const [lower, upper] = [neighbour(u, -1), neighbour(u, 1)].map(value);
  const left = at((lower + value(u)) / 2), right = at((upper + value(u)) / 2);
  if (Number.isFinite(left) && Number.isFinite(right)) {
    picture.append(draw("rect", { class: "cell", x: left, y: LINE - 16, width: right - left, height: 32 }));
  }
  picture.append(
    draw("path", { class: "axis", d: `M0 ${LINE}H${width}` }), draw("path", { class: "points", d: path }));
  edges(at, width);

  const x = at(value(u)), sum = lattice.moved(u, signed()), to = at(sum);
  const landed = at(value(lattice.roundNearest(sum)));
  const tip = Math.sign(to - x) * Math.min(6, Math.abs(to - x));
  picture.append(
    draw("path", { class: "update", d: `M${x} ${LINE - 40}H${clamp(to, -20, width + 20)}m${-tip} -4l${tip} 4l${-tip} 4` }),
    draw("path", { class: "tip", d: `M${clamp(landed, -20, width + 20)} ${LINE - 10}l-6 -10h12z` }),
    draw("circle", { class: "here", cx: x, cy: LINE, r: 7 }),
    draw("text", { class: "strong", x: clamp(x, 60, width - 60), y: 22, "text-anchor": "middle" }, shown(u)));
}

// Powers of two in sight, and how far apart the points are on either side of them.
function edges(at, width) {
  const { middle, half } = state, far = Math.max(Math.abs(middle - half), Math.abs(middle + half));
  const places = [];
  for (const sign of [-1, 1]) {
    for (let k = Math.floor(Math.log2(far)); k >= -126; k--) {
      const x = at(sign * 2 ** k);
      if (Math.abs(x - at(sign * 2 ** (k + 1))) < 18) break;
      if (x > 0 && x < width) places.push([x, `${sign < 0 ? "−" : ""}2${superscript(k)}`]);
    }
  }
  if (Math.abs(middle) < half) places.push([at(0), "0"]);
  places.sort((a, b) => a[0] - b[0]);
  for (const [x, name] of places) {
    picture.append(
      draw("path", { class: "edge", d: `M${x} ${LINE - 24}v48` }),
      draw("text", { class: "strong", x, y: LINE + 40, "text-anchor": "middle" }, name));
  }
  const borders = [0, ...places.map(([x]) => x), width];
  for (let i = 1; i < borders.length; i++) {
    const [from, to] = [borders[i - 1], borders[i]];
    if (to - from < 92) continue;
    const gap = ulp(lattice.nearest(middle + ((from + to) / 2 / width - 0.5) * 2 * half));
    picture.append(draw("text", { x: (from + to) / 2, y: LINE + 40, "text-anchor": "middle" }, `steps of ${power(gap)}`));
  }
}

function valueAt(event) {
  const box = picture.getBoundingClientRect();
  return state.middle + ((event.clientX - box.left) / box.width - 0.5) * 2 * state.half;
}
picture.addEventListener("pointerdown", (event) => {
  picture.setPointerCapture(event.pointerId);
  set(lattice.nearest(valueAt(event)), "", false);
});
picture.addEventListener("pointermove", (event) => {
  if (!picture.hasPointerCapture(event.pointerId)) return;
  const x = valueAt(event), beyond = (x - state.middle) / state.half;
  if (Math.abs(beyond) > 0.9) state.middle += Math.sign(beyond) * state.half / 12; // the line comes along
  set(lattice.nearest(x), "", false);
});
picture.addEventListener("pointerup", () => set(state.u));
picture.addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -16, PageUp: 16 }[event.key];
  const to = { Home: -1, End: 1 }[event.key];
  if (!steps && !to) return;
  event.preventDefault();
  let u = state.u;
  if (to) do u = neighbour(u, to); while (mantissa(u) && isFinite16(u));
  for (let i = 0; i < Math.abs(steps ?? 0); i++) u = neighbour(u, Math.sign(steps));
  set(u);
});

// ---- all that is shown
const output = make("output", { "aria-live": "polite" });
const say = speaker(output);

function sentence() {
  const { u } = state;
  if (!isFinite16(u)) return `${shown(u)}: no update brings it back.`;
  const sum = lattice.moved(u, signed()), by = lattice.roundNearest(sum);
  const inUlps = `${number(state.update / ulp(u), 3)} ULP`;
  if (state.rule === "stochastic") {
    const low = lattice.roundStochastic(sum, 0), high = lattice.roundStochastic(sum, 0xffff);
    let count = 0; // of the 65,536 random numbers, those that go on
    for (let r = 0; r < 0x10000; r++) count += lattice.roundStochastic(sum, r) !== low;
    if (low === high) return `An update of ${number(signed(), 4)} is ${inUlps} and ends on the lattice, at ${shown(low)}.`;
    return `An update of ${number(signed(), 4)} is ${inUlps}: the sum becomes ${shown(high)} with probability ` +
      `${percent(count / 0x10000, 2)}, else ${shown(low)}; on average nothing is lost.`;
  }
  const steps = Math.abs(ordinal(by) - ordinal(u));
  const outcome = by === u || steps === 0 ? `the sum rounds back to ${shown(u)}, and the update is lost`
    : `the sum rounds to ${shown(by)}, ${whole(steps)} step${steps === 1 ? "" : "s"} away`;
  return `An update of ${number(signed(), 4)} is ${inUlps}: ${outcome}.`;
}

function set(u, note = "", refit = true) {
  state.u = u & 0xffff;
  if (refit) fit(false);
  u = state.u;
  buttons.forEach((button, i) => {
    const one = (u >> (15 - i)) & 1;
    button.textContent = one;
    button.setAttribute("aria-pressed", String(Boolean(one)));
  });
  if (document.activeElement !== entry || refit) entry.value = Number.isFinite(value(u)) ? String(Number(value(u).toPrecision(9))) : shown(u);
  entry.removeAttribute("aria-invalid");
  exact.value = String(state.update);
  exact.removeAttribute("aria-invalid");
  size.input.value = Math.log10(state.update || 1e-9);
  size.input.setAttribute("aria-valuetext", number(state.update, 3));
  const E = exponent(u), M = mantissa(u), minus = u & 0x8000 ? "−" : "";
  const formula = E === 255 ? (M ? "NaN" : `${minus}infinity`)
    : E === 0 ? `${minus}2⁻¹²⁶ × ${M}/128` : `${minus}2${superscript(E - 127)} × (1 + ${M}/128)`;
  const next = (step) => {
    const v = neighbour(u, step);
    return v === u ? "none" : `${shown(v)}, ${number(Math.abs(value(v) - value(u)), 4)} away`;
  };
  const texts = [hex(u), formula, Math.abs(ordinal(u)) > INFINITY ? "none" : whole(ordinal(u)),
    Number.isNaN(ulp(u)) ? "none" : `${power(ulp(u))} = ${number(ulp(u), 4)}`, next(-1), next(1)];
  facts.forEach(({ value: cell }, i) => { cell.textContent = texts[i]; });
  picture.setAttribute("aria-valuenow", clamp(ordinal(u), -INFINITY, INFINITY));
  picture.setAttribute("aria-valuetext", shown(u));
  repaint();
  say(note + sentence());
}

root.append(
  make("div", { class: "row" }, make("label", {}, "number", entry), stepper("step down", -1), stepper("step up", 1)),
  fields,
  picture,
  make("dl", {}, ...facts.map(({ node }) => node)),
  make("div", { class: "row" }, direction, make("label", {}, "an update of", exact), size.node),
  make("div", { class: "row" }, rule, apply(1), apply(100)),
  output);
const repaint = painted(picture, paint);
fit(true);
set(state.u);
root.explorer = { state, set, repeat, lattice };
