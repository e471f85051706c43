// Rows = bfloat16(centre + noise), drawn exactly and without drawing the rows: lib/analysis/snowball.py
// and simulation.py in a browser, for normal noise.

const TABLE = 24, REACH = 8.4; // of lib/analysis/snowball.py: cells of a table; sigmas that noise can reach
const SIGMA_LOW = -10.5, SIGMA_HIGH = -6, MOST_ROWS = 20000, MOST_TRIALS = 2000;
const HEIGHT = 190, LEFT = 46, RIGHT = 10, TOP = 12, BOTTOM = 40;
const { value, ordinal, fromOrdinal, roundNearest } = lattice;

// ---- where noise can carry a row
// P(a standard normal is below x), good to the last digits in the lower tail: a series of positive
// terms near zero, Laplace's continued fraction beyond.
function below(x) {
  const z = Math.abs(x);
  if (z > 38) return x < 0 ? 0 : 1;
  const density = Math.exp(-z * z / 2) / Math.sqrt(2 * Math.PI);
  let tail;
  if (z < 3) {
    let term = z, sum = z;
    for (let k = 3; term > sum * 1e-17; k += 2) sum += term *= z * z / k;
    tail = 0.5 - density * sum;
  } else {
    let fraction = z;
    for (let k = 120; k > 0; k--) fraction = z + k / fraction;
    tail = density / fraction;
  }
  return x < 0 ? tail : 1 - tail;
}

// Border between cells o and o + 1: the midpoint, and half a float32 ULP to the side of the odd one.
function border(o) {
  const low = value(fromOrdinal(o)), high = value(fromOrdinal(o + 1)), half = (high - low) * 2 ** -17;
  return (low + high) / 2 + (o % 2 === 0 ? half : -half);
}

const float = new Float32Array(1), word = new Uint32Array(float.buffer);
function nextFloat(x, up) { // the next float32 number
  float[0] = x;
  if (x === 0) word[0] = up ? 1 : 0x80000001;
  else word[0] += (x > 0) === up ? 1 : -1;
  return float[0];
}

// The dimensions that noise of this sigma can move, most restless first: dim, low (ordinal of the
// lowest cell), probability of each cell, leave (of the likeliest); wild ones have no table.
function cells(centre, sigma) {
  const scale = Math.fround(sigma), wide = Math.fround(REACH * scale), found = [];
  for (let dim = 0; dim < centre.length; dim++) {
    const c = centre[dim];
    const low = ordinal(roundNearest(nextFloat(Math.fround(c - wide), false)));
    const high = ordinal(roundNearest(nextFloat(Math.fround(c + wide), true)));
    const count = high - low + 1;
    if (count === 1) continue;
    if (count > TABLE) {
      const home = ordinal(roundNearest(c));
      const stay = below((border(home) - c) / scale) - below((border(home - 1) - c) / scale);
      found.push({ dim, low, wild: true, probability: [], leave: 1 - stay });
      continue;
    }
    const probability = [];
    let left = 0, right = 1; // mass below the cell's lower border, and above it
    for (let j = 0; j < count; j++) {
      const edge = j < count - 1 ? (border(low + j) - c) / scale : Infinity;
      const nextLeft = below(edge), nextRight = below(-edge);
      probability.push(Math.max(0, nextLeft < 0.5 ? nextLeft - left : right - nextRight));
      [left, right] = [nextLeft, nextRight];
    }
    const leave = 1 - Math.max(...probability);
    if (leave > 1e-15) found.push({ dim, low, wild: false, probability, leave });
  }
  return found.sort((a, b) => b.leave - a.leave);
}

// ---- random numbers: sfc32 (Doty-Humphrey), uniform in [0, 1) with 53 bits
function generator(seed) {
  let a = 0, b = 0, c = seed >>> 0, counter = 1;
  const next = () => {
    const t = (a + b + counter++) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + t | 0;
    return t >>> 0;
  };
  for (let i = 0; i < 15; i++) next();
  return () => ((next() >>> 5) * 0x4000000 + (next() >>> 6)) / 2 ** 53;
}
const normal = (random) => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());

// ---- one snowball: the rows of each group of identical ones, most first
// Groups split dimension by dimension. Where a table says that few rows leave the likeliest cell, only
// those are found, by jumps of random length; a row that is alone is set aside.
function snowball(centre, sigma, rows, table, random) {
  const scale = Math.fround(sigma);
  let group = new Int32Array(rows), sizes = [rows];
  for (const { dim, low, wild, probability, leave } of table) {
    const split = new Map();
    const move = (i, cell) => {
      const key = group[i] * 0x100000 + cell;
      let to = split.get(key);
      if (to === undefined) split.set(key, to = sizes.push(0) - 1);
      sizes[group[i]] -= 1;
      sizes[to] += 1;
      group[i] = to;
    };
    if (wild) {
      const c = centre[dim];
      for (let i = 0; i < group.length; i++) {
        const x = Math.fround(Math.fround(Math.fround(normal(random)) * scale) + c);
        move(i, clamp(ordinal(roundNearest(x)) - low, 0, 0xfffff));
      }
    } else {
      const home = probability.indexOf(Math.max(...probability)), log = Math.log1p(-leave);
      for (let i = -1; ;) {
        i += 1 + Math.floor(Math.log(1 - random()) / log);
        if (!(i < group.length)) break;
        let u = random() * leave, cell = -1;
        for (let j = 0; j < probability.length; j++) {
          if (j === home || !probability[j]) continue;
          cell = j;
          if ((u -= probability[j]) < 0) break;
        }
        move(i, cell);
      }
    }
    const stay = group.filter((g) => sizes[g] > 1);
    if (!stay.length) { sizes = []; break; }
    if (split.size) { // number the groups that are left anew
      const place = new Map(), kept = [];
      group = stay.map((g) => {
        if (!place.has(g)) place.set(g, kept.push(sizes[g]) - 1);
        return place.get(g);
      });
      sizes = kept;
    } else {
      group = stay;
    }
  }
  const holes = sizes.filter((n) => n > 1).sort((a, b) => b - a);
  return { holes, alone: rows - holes.reduce((sum, n) => sum + n, 0) };
}

// ---- the state
const state = { name: Object.keys(data.centres)[0], sigma: data.sigma, rows: data.rows, seed: data.seed, centre: null,
  table: [], one: null, counts: [], running: false };
let random;

function reset() {
  state.table = cells(state.centre, state.sigma);
  random = generator(state.seed);
  state.counts = [];
  add(1);
}

function add(trials) {
  for (let i = 0; i < trials; i++) {
    const drawn = snowball(state.centre, state.sigma, state.rows, state.table, random);
    state.one = drawn;
    state.counts.push(drawn.holes.length);
  }
}

function run() {
  if (!state.running) return;
  const began = performance.now();
  while (performance.now() - began < 30 && state.counts.length < MOST_TRIALS) add(1);
  if (state.counts.length >= MOST_TRIALS) stop();
  show();
  if (state.running) requestAnimationFrame(run);
}
function stop() {
  state.running = false;
  play.textContent = "Draw on";
}

// ---- the fields
const source = make("select", { onchange: () => { state.name = source.value; change(); } },
  ...Object.entries(data.centres).map(([key, { name }]) => make("option", { value: key }, name)));
const sigma = slider("σ", { min: SIGMA_LOW, max: SIGMA_HIGH, step: 0.01 }, (power) => {
  state.sigma = Number((10 ** power).toPrecision(3));
  change();
});
const entries = { sigma: [1e-12, 1e-3], rows: [2, MOST_ROWS] };
const [exact, rows] = Object.entries(entries).map(([key, [low, high]]) => {
  const input = make("input", { type: "text", size: 8, autocomplete: "off", spellcheck: "false", onchange: () => {
    const x = typed(input.value), good = x >= low && x <= high;
    input.setAttribute("aria-invalid", String(!good));
    if (!good) { say(`${key}: a number from ${number(low)} to ${number(high)}, please.`); return; }
    state[key] = key === "rows" ? Math.round(x) : x;
    change();
  } });
  return input;
});
exact.setAttribute("aria-label", "σ, as a number");
sigma.said.replaceWith(exact);
const again = make("button", { type: "button", onclick: () => { stop(); add(1); show(); } }, "Draw another");
const play = make("button", { type: "button", onclick: () => {
  if (state.running) { stop(); show(); return; }
  if (state.counts.length >= MOST_TRIALS) reset();
  state.running = true;
  play.textContent = "Pause";
  run();
} }, "Draw on");

async function change() {
  stop();
  const { name } = state, unpacked = new Float32Array(await unpack(data.centres[name].bits));
  if (name !== state.name) return; // another was chosen meanwhile
  state.centre = unpacked;
  reset();
  show();
}

// ---- the pictures
const pictures = ["holes", "trials", "moving"].map(() => draw("svg", { role: "img" }));
const [holes, trials, moving] = pictures;

function frame(svg, words, ticks, low, high) {
  const width = svg.clientWidth || 320, right = width - RIGHT, bottom = HEIGHT - BOTTOM;
  const up = (v) => bottom - (v - low) / (high - low) * (bottom - TOP);
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  svg.replaceChildren();
  for (const [v, name] of ticks) {
    svg.append(draw("path", { class: "grid", d: `M${LEFT} ${up(v)}H${right}` }),
      draw("text", { x: LEFT - 6, y: up(v) + 4, "text-anchor": "end" }, name));
  }
  svg.append(draw("path", { class: "axis", d: `M${LEFT} ${TOP}V${bottom}H${right}` }),
    draw("text", { x: (LEFT + right) / 2, y: HEIGHT - 7, "text-anchor": "middle" }, words));
  return { up, right, bottom, wide: right - LEFT };
}
const decades = (low, high) => Array.from({ length: high - low + 1 }, (_, i) => [low + i, `10${superscript(low + i)}`]);

function paintHoles() {
  const { one } = state, most = Math.max(one.holes.length, data.printed.length, 16);
  const { up, wide, bottom } = frame(holes, "holes by population", [[0, "1"], [1, "10"], [2, "100"], [3, "1,000"]], -0.15, Math.log10(Math.max(state.rows, 1000)));
  const each = wide / most, x = (i) => LEFT + i * each;
  one.holes.forEach((n, i) => holes.append(draw("rect", { class: "bar", x: x(i) + each * 0.12, y: up(Math.log10(n)), width: Math.max(each * 0.76, 0.5), height: bottom - up(Math.log10(n)) })));
  const stairs = data.printed.map((n, i) => `${i ? "L" : "M"}${x(i)} ${up(Math.log10(n))}H${x(i + 1)}`).join("");
  holes.append(draw("path", { class: "printed", d: stairs }));
  holes.setAttribute("aria-label", `Populations of the ${one.holes.length} holes of one snowball: ${one.holes.slice(0, 12).join(", ") || "none"}. Qwen3-4B's: ${data.printed.join(", ")}`);
}

function paintTrials() {
  const { counts } = state, high = Math.max(...counts, data.printed.length) + 1, step = Math.max(1, Math.ceil(high / 60));
  const bins = new Float64Array(Math.ceil((high + 1) / step));
  for (const n of counts) bins[Math.floor(n / step)] += 1 / counts.length;
  const top = Math.max(...bins), ticks = [0, 0.5, 1].map((s) => [s * top, percent(s * top, 0)]);
  const { up, wide, bottom } = frame(trials, "number of holes", ticks, 0, top * 1.05), each = wide / bins.length;
  bins.forEach((share, i) => share && trials.append(draw("rect", { class: "count", x: LEFT + i * each + each * 0.08, y: up(share), width: each * 0.84, height: bottom - up(share) })));
  const at = LEFT + (data.printed.length + 0.5) / step * each, end = at > LEFT + wide * 0.6;
  trials.append(draw("path", { class: "mark", d: `M${at} ${TOP}V${bottom}` }),
    draw("text", { class: "strong", x: at + (end ? -6 : 6), y: TOP + 12, "text-anchor": end ? "end" : "start" }, `Qwen3-4B: ${data.printed.length}`));
  const every = Math.ceil(high / 4);
  for (let n = 0; n <= high; n += every) trials.append(draw("text", { x: LEFT + (n + 0.5) / step * each, y: bottom + 14, "text-anchor": "middle" }, n));
  trials.setAttribute("aria-label", `Number of holes in ${whole(counts.length)} snowballs, from ${Math.min(...counts)} to ${Math.max(...counts)}`);
}

function paintMoving() {
  const first = state.table.slice(0, 60), low = -9;
  const ticks = decades(low / 3, 0).map(([k]) => [3 * k, k ? `10${superscript(3 * k)}` : "1"]);
  const { up, wide, bottom } = frame(moving, "dimensions that move, most restless first", ticks, low, 0.1), each = wide / Math.max(first.length, 20);
  first.forEach(({ leave }, i) => {
    const y = up(Math.max(low, Math.log10(leave)));
    moving.append(draw("rect", { class: "count", x: LEFT + i * each + each * 0.15, y, width: Math.max(each * 0.7, 0.5), height: bottom - y }));
  });
  moving.setAttribute("aria-label", `Probability that a row leaves its likeliest cell, in the ${first.length} most restless of ${state.table.length} dimensions that move`);
}

// ---- all that is shown
const output = make("output", { "aria-live": "polite" });
const say = speaker(output);
const paint = () => { if (state.one) { paintHoles(); paintTrials(); paintMoving(); } };

function show() {
  const { one, counts, table } = state;
  sigma.input.value = Math.log10(state.sigma);
  sigma.input.setAttribute("aria-valuetext", number(state.sigma, 3));
  exact.value = state.sigma;
  rows.value = state.rows;
  for (const input of [exact, rows]) input.removeAttribute("aria-invalid");
  repaint();
  const mean = counts.reduce((sum, n) => sum + n, 0) / counts.length;
  const spread = Math.sqrt(counts.reduce((sum, n) => sum + (n - mean) ** 2, 0) / counts.length);
  const inHoles = state.rows - one.alone;
  say(`One snowball of ${whole(state.rows)} rows: ${whole(one.holes.length)} hole${one.holes.length === 1 ? "" : "s"} hold ${whole(inHoles)} rows, ` +
    `the largest ${whole(one.holes[0] ?? 0)}; ${whole(one.alone)} row${one.alone === 1 ? " is" : "s are"} alone. ${whole(table.length)} of ${whole(state.centre.length)} dimensions can move. ` +
    (counts.length > 1 ? `In ${whole(counts.length)} snowballs there are ${mean.toFixed(1)} ± ${spread.toFixed(1)} holes. ` : "") +
    `Qwen3-4B: ${data.printed.length} holes with ${whole(data.printed.reduce((sum, n) => sum + n, 0))} rows.`);
}

const titled = (words, svg) => make("div", {}, make("p", { class: "title" }, words), svg);
root.append(
  make("div", { class: "row" }, make("label", {}, "centre", source)),
  make("div", { class: "row" }, sigma.node, make("label", {}, "rows", rows), again, play),
  titled("One snowball (bars), and Qwen3-4B as printed (line)", holes),
  make("div", { class: "two" }, titled("All snowballs of this kind", trials), titled("How often a row leaves its cell", moving)),
  output);
const repaint = painted(holes, paint);
change().then(() => { root.explorer = { state, cells, border, snowball, generator, change, unpack, add, reset }; });
