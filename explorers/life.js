// The film of a small model: rows of its matrix step by step, in two of their components.

const { value, ulp, ordinal, fromOrdinal, nearest } = lattice;
const { steps, dims, ids, names, dead, last, curves } = data;
const frames = steps + 1, ROWS = ids.length, TRAIL = 40, CLOSEST = 7; // doublings of the magnification
const SECONDS = 24; // of the whole film
const state = { step: 0, zoom: 0, follow: -1, playing: false };
let places, still, box; // patterns by row, component and frame; bits by frame and row; what the film covers

async function load() {
  const bytes = new Uint8Array(await unpack(data.frames)), n = bytes.length / 2;
  places = new Uint16Array(n);
  for (let k = 0; k < n; k++) {
    const change = bytes[k] | (bytes[n + k] << 8);
    places[k] = k % frames ? places[k - 1] + change : change;
  }
  still = new Uint8Array(await unpack(data.still));
  const middle = [0, 1].map((d) => {
    let low = Infinity, high = -Infinity;
    for (let row = 0; row < ROWS; row++) for (let t = 0; t < frames; t++) {
      const v = value(pattern(row, d, t));
      low = Math.min(low, v);
      high = Math.max(high, v);
    }
    return [(low + high) / 2, (high - low) / 2];
  });
  box = { x: middle[0][0], y: middle[1][0], half: 1.06 * Math.max(middle[0][1], middle[1][1]) };
}

const pattern = (row, d, t) => places[(row * 2 + d) * frames + t];
const place = (row, t) => [value(pattern(row, 0, t)), value(pattern(row, 1, t))];
const isStill = (row, t) => t > 0 && Boolean(still[((t - 1) * dead + row) >> 3] >> (7 - (((t - 1) * dead + row) & 7)) & 1);
const kind = (row, t) => (row >= dead ? "live" : t > last[row] ? "frozen" : isStill(row, t) ? "still" : "moving");

// ---- the picture
const canvas = make("canvas", { role: "img" });

function window_() { // middle and half width of what is seen
  const { step, zoom, follow } = state, scale = 2 ** zoom;
  let target = [0, 0];
  if (follow >= 0) target = place(follow, step);
  else {
    for (let row = 0; row < dead; row++) {
      const [x, y] = place(row, step);
      target = [target[0] + x / dead, target[1] + y / dead];
    }
  }
  const mix = scale ** -2; // from far the whole film, from near the one that is followed in the middle
  return { x: box.x * mix + target[0] * (1 - mix), y: box.y * mix + target[1] * (1 - mix), half: box.half / scale };
}

function points(middle, half, least, scale) { // lattice values in sight; none if they stand too close
  const first = ordinal(nearest(middle - half)), end = ordinal(nearest(middle + half)), found = [];
  if ((end - first) * least > 2 * half * scale * 3) return found;
  for (let o = first; o <= end; o++) found.push(value(fromOrdinal(o)));
  const gap = ulp(nearest(middle)) * scale;
  return gap < least ? [] : found;
}

let onScreen = [];
function paint() {
  const width = canvas.clientWidth || 600;
  const { context: pen, height } = sharp(canvas, Math.min(440, Math.max(300, width * 0.68)));
  const { x, y, half } = window_(), scale = Math.min(width, height) / 2 / half;
  const at = (u, v) => [width / 2 + (u - x) * scale, height / 2 - (v - y) * scale];
  pen.clearRect(0, 0, width, height);

  pen.strokeStyle = colour("--line");
  pen.lineWidth = 1;
  pen.beginPath();
  for (const u of points(x, width / 2 / scale, 5, scale)) { const [px] = at(u, 0); pen.moveTo(px, 0); pen.lineTo(px, height); }
  for (const v of points(y, height / 2 / scale, 5, scale)) { const [, py] = at(0, v); pen.moveTo(0, py); pen.lineTo(width, py); }
  pen.stroke();
  pen.strokeStyle = colour("--soft");
  pen.globalAlpha = 0.6;
  pen.beginPath();
  const [zx, zy] = at(0, 0);
  pen.moveTo(zx, 0); pen.lineTo(zx, height); pen.moveTo(0, zy); pen.lineTo(width, zy);
  pen.stroke();
  pen.globalAlpha = 1;

  const { step, follow } = state, colours = { live: colour("--live"), dead: colour("--dead"), ink: colour("--ink") };
  onScreen = [];
  if (follow >= 0) {
    pen.strokeStyle = colour("--accent");
    pen.lineWidth = 1.5;
    pen.beginPath();
    for (let t = Math.max(0, step - TRAIL); t <= step; t++) pen.lineTo(...at(...place(follow, t)));
    pen.stroke();
  }
  pen.lineWidth = 1.5;
  for (let row = ROWS - 1; row >= 0; row--) { // the dead on top
    const [px, py] = at(...place(row, step)), size = 2.4 + 0.3 * state.zoom;
    if (px < -9 || py < -9 || px > width + 9 || py > height + 9) continue;
    onScreen.push([px, py, row]);
    pen.beginPath();
    const what = kind(row, step);
    if (what === "live") {
      pen.strokeStyle = colours.live;
      pen.moveTo(px - size, py - size); pen.lineTo(px + size, py + size);
      pen.moveTo(px - size, py + size); pen.lineTo(px + size, py - size);
      pen.stroke();
    } else if (what === "frozen") {
      pen.fillStyle = colours.ink;
      pen.fillRect(px - size, py - size, 2 * size, 2 * size);
    } else {
      pen.fillStyle = pen.strokeStyle = colours.dead;
      pen.arc(px, py, size, 0, 2 * Math.PI);
      if (what === "still") pen.stroke(); else pen.fill();
    }
  }
  if (follow >= 0) {
    const [px, py] = at(...place(follow, step));
    pen.strokeStyle = colour("--accent");
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(px, py, 9, 0, 2 * Math.PI);
    pen.stroke();
  }
  pen.fillStyle = colour("--soft");
  pen.font = `12px ${getComputedStyle(canvas).fontFamily}`;
  pen.fillText(`component ${dims[0]} →, component ${dims[1]} ↑`, 10, height - 10);
  const wide = `${number(width / scale, 2)} wide, steps of 2${superscript(Math.log2(ulp(nearest(x))))} and 2${superscript(Math.log2(ulp(nearest(y))))}`;
  pen.fillText(wide, 10, 18);
  paintTimeline();
}

const timeline = draw("svg", { role: "img" });
function paintTimeline() {
  const width = timeline.clientWidth || 600, HEIGHT = 92, TOP = 8, BOTTOM = 20, LEFT = 44;
  timeline.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const across = (t) => LEFT + t / steps * (width - LEFT - 8), up = (s) => HEIGHT - BOTTOM - s * (HEIGHT - BOTTOM - TOP);
  const line = (name) => curves[name].map((s, t) => `${t ? "L" : "M"}${across(t + 1).toFixed(1)} ${up(s).toFixed(1)}`).join("");
  timeline.replaceChildren(
    ...[0, 1].flatMap((s) => [draw("path", { class: "grid", d: `M${LEFT} ${up(s)}H${width - 8}` }),
      draw("text", { x: LEFT - 6, y: up(s) + 4, "text-anchor": "end" }, percent(s, 0))]),
    draw("path", { class: "share", d: line("still") }), draw("path", { class: "frozen", d: line("frozen") }),
    draw("path", { class: "now", d: `M${across(state.step)} ${TOP - 4}V${HEIGHT - BOTTOM + 4}` }),
    draw("text", { x: LEFT, y: HEIGHT - 4 }, "step 0"), draw("text", { x: width - 8, y: HEIGHT - 4, "text-anchor": "end" }, whole(steps)));
  timeline.setAttribute("aria-label", `Share of the dead rows that stand still, and of those frozen for good, by step: at the end ${percent(curves.still[steps - 1])} and ${percent(curves.frozen[steps - 1])}`);
}

canvas.addEventListener("click", (event) => { // the nearest dead row is followed
  const seen = canvas.getBoundingClientRect();
  let best = [24, -1];
  for (const [px, py, row] of onScreen) {
    const away = Math.hypot(px - event.clientX + seen.left, py - event.clientY + seen.top);
    if (row < dead && away < best[0]) best = [away, row];
  }
  pursue(best[1]);
});

// ---- what moves it
const step = slider("step", { min: 0, max: steps, step: 1, value: 0 }, (t) => { stop(); go(t); });
step.node.classList.add("wide");
const zoom = slider("magnification", { min: 0, max: CLOSEST, step: 0.05, value: 0 }, (power) => { state.zoom = power; show(); });
const follow = make("select", { onchange: () => pursue(Number(follow.value)) },
  make("option", { value: -1 }, "the middle of the dead"),
  ...names.slice(0, dead).map((name, row) => make("option", { value: row }, `${name} (id ${ids[row]})`)));
const play = make("button", { type: "button", onclick: () => (state.playing ? stop() : start()) }, "Play");

function go(t) {
  state.step = clamp(t, 0, steps);
  show();
}
function pursue(row) {
  state.follow = row;
  follow.value = row;
  show();
}
function start() {
  const from = state.step >= steps ? 0 : state.step, began = performance.now();
  state.playing = true;
  play.textContent = "Pause";
  (function on() {
    if (!state.playing) return;
    go(from + Math.floor((performance.now() - began) / 1000 / SECONDS * steps));
    if (state.step >= steps) stop();
    else requestAnimationFrame(on);
  })();
}
function stop() {
  state.playing = false;
  play.textContent = "Play";
}

// ---- all that is shown
const output = make("output", { "aria-live": "polite" });
const say = speaker(output);
const mark = (what, ...shapes) => make("li", {}, draw("svg", { viewBox: "0 0 14 14", "aria-hidden": "true" }, ...shapes), what);
const legend = make("ul", { class: "legend" },
  mark("dead, moving", draw("circle", { class: "mark-moving", cx: 7, cy: 7, r: 4 })),
  mark("dead, still in this step", draw("circle", { class: "mark-still", cx: 7, cy: 7, r: 4 })),
  mark("dead, frozen for good", draw("rect", { class: "mark-frozen", x: 3, y: 3, width: 8, height: 8 })),
  mark("live", draw("path", { class: "mark-live", d: "M3 3l8 8M3 11l8 -8" })));

function show() {
  const { step: t, follow: row } = state;
  step.input.value = t;
  step.said.textContent = whole(t);
  zoom.said.textContent = `${number(2 ** state.zoom, 3)} ×`;
  zoom.input.setAttribute("aria-valuetext", zoom.said.textContent);
  repaint();
  let text = t ? `After step ${whole(t)} of ${whole(steps)}: loss ${curves.loss[t - 1].toFixed(2)}. Of all ${whole(data.all)} dead rows ` +
    `${percent(curves.still[t - 1])} stand still in this step, ${percent(curves.frozen[t - 1])} for good; they lie ${number(curves.radius[t], 3)} from their middle on average. `
    : "Before the first step: the rows lie where they were drawn. ";
  if (row >= 0) {
    const said = { moving: "it moves", still: "it stands still in this step", frozen: `it has been frozen since step ${whole(last[row])}` }[kind(row, t)];
    const [x, y] = place(row, t);
    text += `“${names[row]}” (id ${ids[row]}) is at ${number(x)}, ${number(y)}: ${said}.`;
  }
  canvas.setAttribute("aria-label", `${dead} dead and ${ROWS - dead} live rows in components ${dims[0]} and ${dims[1]} of the matrix, after step ${t}`);
  say(text);
}

root.append(
  make("div", { class: "row" }, play, step.node),
  make("div", { class: "row" }, zoom.node, make("label", {}, "follow", follow)),
  canvas, legend,
  make("p", { class: "title" }, "Dead rows that stand still (thin), and that never move again (thick)"), timeline,
  output);
const repaint = painted(canvas, () => { if (box) paint(); });
load().then(() => {
  show();
  root.explorer = { state, pattern, kind, isStill, go, pursue };
});
