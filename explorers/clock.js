// A learning rate drawn by hand, and what decoupled decay leaves of a row that nothing reads.

const POINTS = 41, MOST_STEPS = 4e6; // of the drawn curve; of what a browser sums while one waits
const HEIGHT = 190, LEFT = 58, RIGHT = 12, TOP = 14, BOTTOM = 26;

// ---- the arithmetic of lib/analysis/clock.py
// Learning rate of step 1, 2, ... of a stage.
function rate(stage, step) {
  const { peak, end, warmup, shape } = stage, horizon = stage.horizon || stage.steps;
  if (step <= warmup) return stage.warmup_from + (peak - stage.warmup_from) * step / Math.max(warmup, 1);
  const done = clamp((step - warmup) / Math.max(horizon - warmup, 1), 0, 1);
  if (shape === "linear") return end + (peak - end) * (1 - done);
  if (shape === "cosine") return end + (peak - end) * (1 + Math.cos(Math.PI * done)) / 2;
  if (shape === "neox") {
    const at = Math.min(step, horizon - warmup) - warmup;
    return Math.max(peak / 2 * (1 + Math.cos(Math.PI * at / horizon)), end);
  }
  if (shape === "inverse sqrt") return peak * Math.sqrt(warmup / step);
  return peak;
}

// Exposure after every step, from 0 on: the sum of -ln(1 - rate * decay), with what rounding leaves
// out of it carried along.
function exposures(steps, factor) {
  const sums = new Float64Array(steps + 1);
  let sum = 0, rest = 0;
  for (let step = 1; step <= steps; step++) {
    const term = -Math.log1p(-factor(step)) - rest, next = sum + term;
    rest = next - sum - term;
    sums[step] = sum = next;
  }
  return sums;
}

function ofRecipe({ stages, exempt }) {
  const ends = [];
  let all = 0;
  for (const stage of stages) ends.push(all += Math.floor(stage.steps));
  let at = 0;
  const place = (step) => {
    while (step > ends[at]) at += 1;
    while (at && step <= ends[at - 1]) at -= 1;
    return [stages[at], step - (at ? ends[at - 1] : 0)];
  };
  const rates = (step) => rate(...place(step));
  const decay = (step) => (exempt ? 0 : place(step)[0].decay);
  return { steps: all, rates, sums: exposures(all, (step) => rates(step) * decay(step)) };
}

// ---- what is drawn
const SHAPES = {
  cosine: { shape: "cosine", end: 0.1, warmup: 0.02 }, linear: { shape: "linear", end: 0, warmup: 0.02 },
  constant: { shape: "constant", end: 0, warmup: 0.02 }, "inverse sqrt": { shape: "inverse sqrt", end: 0, warmup: 0.02 },
};
const state = { curve: new Float64Array(POINTS), at: Math.round(POINTS / 2), steps: data.steps, peak: data.peak,
  decay: data.decay, sigma: data.sigma, dim: data.dim, model: null, result: null };

function shaped(name) {
  const { shape, end, warmup } = SHAPES[name], steps = 1000;
  const stage = { shape, steps, peak: 1, end, warmup: warmup * steps, warmup_from: 0, horizon: 0 };
  state.curve = Float64Array.from({ length: POINTS }, (_, i) => (i ? rate(stage, i / (POINTS - 1) * steps) : 0));
  state.model = null;
}

function drawn(step) {
  const place = (step - 1) / Math.max(state.steps - 1, 1) * (POINTS - 1), i = Math.min(Math.floor(place), POINTS - 2);
  return state.peak * (state.curve[i] + (state.curve[i + 1] - state.curve[i]) * (place - i));
}

function compute() {
  const { model } = state;
  if (model) state.result = ofRecipe(model);
  else state.result = { steps: state.steps, rates: drawn, sums: exposures(state.steps, (step) => drawn(step) * state.decay) };
  state.result.initial = model ? model.initial : state.sigma * Math.sqrt(state.dim);
  state.result.total = state.result.sums[state.result.steps];
}

function follow(model) { // a released recipe, in the drawing and the fields
  state.model = model;
  const { steps, rates } = ofRecipe(model);
  state.steps = steps;
  state.peak = Math.max(...model.stages.map((stage) => stage.peak));
  state.decay = model.exempt ? 0 : model.stages[0].decay;
  state.sigma = model.sigma;
  state.dim = model.dim;
  state.curve = Float64Array.from({ length: POINTS }, (_, i) => rates(1 + Math.round(i / (POINTS - 1) * (steps - 1))) / state.peak);
}

// ---- the fields
const field = (words, key, low, high, integer = false) => {
  const input = make("input", { type: "text", size: 9, autocomplete: "off", spellcheck: "false", onchange: () => {
    const x = typed(input.value), other = { peak: state.decay, decay: state.peak }[key] ?? 0;
    const good = x >= low && x <= high && x * other < 1; // or a step would take more than the row
    input.setAttribute("aria-invalid", String(!good));
    if (!good) { say(`${words}: a number from ${number(low)} to ${number(high)}, please${other ? `, and below ${number(1 / other)}` : ""}.`); return; }
    state[key] = integer ? Math.round(x) : x;
    own();
  } });
  return { key, input, node: make("label", {}, words, input) };
};
const inputs = [
  field("peak learning rate", "peak", 0, 1), field("weight decay", "decay", 0, 10),
  field("steps", "steps", 1, MOST_STEPS, true), field("σ at the start", "sigma", 1e-9, 100), field("width", "dim", 1, 1e6, true)];

const start = make("select", { onchange: () => {
  const model = data.models.find(({ name }) => name === start.value);
  if (model) follow(model);
  else if (start.value) shaped(start.value);
  show();
} },
  make("option", { value: "" }, "drawn by hand"),
  make("optgroup", { label: "shapes" }, ...Object.keys(SHAPES).map((name) => make("option", { value: name }, name))),
  make("optgroup", { label: "released models" }, ...data.models.map(({ name }) => make("option", { value: name }, name))));

function own() { // from here on the schedule is the reader's
  state.model = null;
  start.value = "";
  show();
}

// ---- the pictures
const picture = (attributes) => draw("svg", attributes);
const schedule = picture({ tabindex: 0, role: "slider", "aria-label":
  "learning rate by step, drawn by hand; left and right choose a place, up and down change the rate there",
  "aria-valuemin": 0, "aria-valuemax": 100 });
const norm = picture({ role: "img" }), models = picture({ role: "img" });

function frame(svg, x, y, height = HEIGHT) {
  const width = svg.clientWidth || 640;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  const right = width - RIGHT, bottom = height - BOTTOM;
  const across = (v) => LEFT + (v - x.low) / (x.high - x.low) * (right - LEFT);
  const up = (v) => bottom - (v - y.low) / (y.high - y.low) * (bottom - TOP);
  for (const [v, name] of y.ticks) {
    svg.append(draw("path", { class: "grid", d: `M${LEFT} ${up(v)}H${right}` }),
      draw("text", { x: LEFT - 6, y: up(v) + 4, "text-anchor": "end" }, name));
  }
  for (const [v, name] of x.ticks) {
    svg.append(draw("text", { x: clamp(across(v), LEFT + 4, right - 12), y: height - 8, "text-anchor": "middle" }, name));
  }
  svg.append(draw("path", { class: "axis", d: `M${LEFT} ${TOP}V${bottom}H${right}` }));
  return { across, up, right, bottom, width };
}

const halves = (high, name) => [0, 0.5, 1].map((share) => [share * high, name(share * high)]);
function decades(low, high) { // ticks of log10 values, at most six
  const every = Math.max(1, Math.ceil((high - low) / 5)), ticks = [];
  for (let k = Math.ceil(low); k <= high + 1e-9; k++) if (k % every === 0) ticks.push([k, `10${superscript(k)}`]);
  return ticks;
}

function paintSchedule() {
  const { steps, peak, curve, at } = state, top = peak || 1;
  const { across, up, bottom } = frame(schedule, { low: 0, high: 1, ticks: halves(1, (s) => (s ? whole(s * steps) : "step 0")) },
    { low: 0, high: 1.04, ticks: halves(1, (s) => number(s * top, 3)) });
  const d = [...curve].map((y, i) => `${i ? "L" : "M"}${across(i / (POINTS - 1)).toFixed(1)} ${up(y).toFixed(1)}`).join("");
  schedule.append(draw("path", { class: "under", d: `${d}L${across(1)} ${bottom}L${across(0)} ${bottom}z` }),
    draw("path", { class: "drawn", d }),
    draw("circle", { class: "hold", cx: across(at / (POINTS - 1)), cy: up(curve[at]), r: 5 }));
}

function paintNorm() {
  const { result: { sums, steps, initial, total } } = state;
  const y = (exposure) => Math.log10(initial) - exposure / Math.LN10;
  const low = Math.floor(Math.min(y(total), Math.log10(initial) - 0.3) * 10 - 1) / 10, high = Math.log10(initial) + 0.05;
  const ticks = high - low > 1.5 ? decades(low, high)
    : [y(0), (y(0) + y(total)) / 2, y(total)].filter((v, i, all) => !i || all[0] - v > 0.08).map((v) => [v, number(10 ** v, 3)]);
  const { across, up } = frame(norm, { low: 0, high: steps, ticks: halves(steps, (s) => (s ? whole(s) : "step 0")) }, { low, high, ticks });
  let d = "";
  for (let i = 0; i <= 300; i++) {
    const step = Math.round(i / 300 * steps);
    d += `${i ? "L" : "M"}${across(step).toFixed(1)} ${up(y(sums[step])).toFixed(1)}`;
  }
  norm.append(draw("path", { class: "drawn", d }));
  norm.setAttribute("aria-label", `Norm of a row that was never seen, by step: from ${number(initial)} to ${number(initial * Math.exp(-total))}`);
}

function paintModels() {
  const { result: { total }, model } = state;
  const most = Math.max(2, total, ...data.models.map(({ due }) => due)) * 1.06, low = -most / Math.LN10;
  const every = most > 12 ? 5 : most > 4 ? 2 : 1, ticks = [];
  for (let v = 0; v <= most; v += every) ticks.push([v, v ? String(v) : "Λ = 0"]);
  const { across, up, right } = frame(models, { low: -most / 40, high: most, ticks }, { low, high: -low / 20, ticks: decades(low, 0) }, 230);
  const left = (exposure) => -exposure / Math.LN10;
  models.append(draw("path", { class: "law", d: `M${across(0)} ${up(0)}L${across(most)} ${up(left(most))}` }));
  for (const one of data.models) {
    const y = up(Math.log10(one.measured / one.initial)), x = across(one.due);
    models.append(draw("circle", { class: `model${one.sourced ? " sourced" : ""}`, cx: x, cy: y, r: one === model ? 8 : 5 }));
  }
  const x = across(total), y = up(left(total)), end = x > right - 190;
  models.append(draw("path", { class: "own", d: `M${x} ${y - 8}l8 8l-8 8l-8 -8z` }),
    draw("text", { class: "strong", x: end ? x - 14 : x + 14, y: y - 6, "text-anchor": end ? "end" : "start" },
      model ? model.name : "your schedule"));
  models.setAttribute("aria-label", `What is left of the norm against the exposure: ${data.models.length} released models along the law, your schedule at ${number(total, 3)}`);
}

// ---- drawing
function put(event, from) {
  const box = schedule.getBoundingClientRect(), inner = box.width - LEFT - RIGHT;
  const i = clamp(Math.round((event.clientX - box.left - LEFT) / inner * (POINTS - 1)), 0, POINTS - 1);
  const share = (HEIGHT - BOTTOM - (event.clientY - box.top) * HEIGHT / box.height) / (HEIGHT - BOTTOM - TOP) * 1.04;
  const y = clamp(share, 0, 1), first = from ?? i, before = state.curve[first];
  for (let k = first; ; k += Math.sign(i - first)) {
    state.curve[k] = i === first ? y : before + (y - before) * (k - first) / (i - first);
    if (k === i) break;
  }
  state.at = i;
  own();
}
schedule.addEventListener("pointerdown", (event) => { schedule.setPointerCapture(event.pointerId); put(event, null); });
schedule.addEventListener("pointermove", (event) => { if (schedule.hasPointerCapture(event.pointerId)) put(event, state.at); });
schedule.addEventListener("keydown", (event) => {
  const across = { ArrowLeft: -1, ArrowRight: 1, Home: -POINTS, End: POINTS }[event.key];
  const up = { ArrowUp: 0.02, ArrowDown: -0.02, PageUp: 0.1, PageDown: -0.1 }[event.key];
  if (!across && !up) return;
  event.preventDefault();
  if (across) {
    state.at = clamp(state.at + across, 0, POINTS - 1);
    show();
  } else {
    state.curve[state.at] = clamp(state.curve[state.at] + up, 0, 1);
    own();
  }
});

// ---- all that is shown
const output = make("output", { "aria-live": "polite" });
const say = speaker(output);
const paint = () => { paintSchedule(); paintNorm(); paintModels(); };

function show() {
  compute();
  const { result: { steps, initial, total }, model, peak, at, curve } = state;
  for (const { key, input } of inputs) {
    input.value = String(Number(state[key].toPrecision(6)));
    input.removeAttribute("aria-invalid");
  }
  const here = `${percent(at / (POINTS - 1), 0)} of the steps: learning rate ${number(peak * curve[at], 3)}`;
  schedule.setAttribute("aria-valuenow", Math.round(100 * curve[at]));
  schedule.setAttribute("aria-valuetext", here);
  repaint();
  const printed = model ? ` ${model.name} has ${number(model.measured, 4)}, by its published report.` : "";
  say(`After ${whole(steps)} steps the exposure is Λ = ${number(total, 4)}. A row that was never seen begins with norm ` +
    `${number(initial, 4)} and ends with ${number(initial * Math.exp(-total), 4)}.${printed}`);
}

const heading = (words) => make("p", { class: "title" }, words);
root.append(
  make("div", { class: "row" }, make("label", {}, "schedule", start), ...inputs.map(({ node }) => node)),
  heading("The learning rate: draw on it"), schedule,
  heading("The norm of a row that was never seen"), norm,
  heading("What is left of it, beside released models"), models,
  make("p", { class: "soft" }, "Dashed: the law, what is left is exp(−Λ). Circles: released models by the recipe's exposure and the printed norm; filled where every value of the recipe has a source, open where some are assumed."),
  output);
const repaint = painted(schedule, paint);
shaped("cosine");
start.value = "cosine";
show();
root.explorer = { state, ofRecipe, follow, show };
