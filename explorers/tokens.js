// Qwen's tokenizer in the page: text -> NFC -> words -> tokens, every id with its class and its row.

const FIRST = 256, SHIFT = 0x40000, MOST_SHOWN = 120, MOST_TEXT = 20000, MOST_TRACED = 400;
const encoder = new TextEncoder(), strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const { added, rows, classes, scripts, notes, matrix, printed } = data;
const count = data.count; // tokens that have bytes of their own
const addedIds = new Map(Object.entries(added).map(([id, text]) => [text, Number(id)]));
const words = new RegExp(data.pattern, "gu");
const literally = (text) => text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
const special = new RegExp([...addedIds.keys()].sort((a, b) => b.length - a.length).map(literally).join("|"), "gu");

let bytes, starts, left, right, texts; // of all tokens: bytes end to end, where each begins, its pair, its text
let merges; // a pair of ids as one number -> the id that they become
let reach, script, norms, sky, holes, printedHoles, printedSingles;

async function load() {
  const pairs = new Uint8Array(await unpack(data.pairs)), n = count - FIRST;
  const column = (k) => Int32Array.from({ length: n }, (_, i) => pairs[k * n + i] | (pairs[(k + 1) * n + i] << 8) | (pairs[(k + 2) * n + i] << 16));
  left = column(0);
  right = column(3);
  starts = new Int32Array(count + 1);
  for (let id = 0; id < count; id++) {
    const length = id < FIRST ? 1 : starts[left[id - FIRST] + 1] - starts[left[id - FIRST]] + starts[right[id - FIRST] + 1] - starts[right[id - FIRST]];
    starts[id + 1] = starts[id] + length;
  }
  bytes = new Uint8Array(starts[count]);
  merges = new Map();
  for (let id = 0; id < count; id++) {
    if (id < FIRST) { bytes[id] = data.bytes[id]; continue; }
    const [a, b] = [left[id - FIRST], right[id - FIRST]];
    bytes.copyWithin(starts[id], starts[a], starts[a + 1]);
    bytes.copyWithin(starts[id] + starts[a + 1] - starts[a], starts[b], starts[b + 1]);
    merges.set(a * SHIFT + b, id);
  }
  reach = new Uint8Array(await unpack(data.reach));
  script = new Uint8Array(await unpack(data.script));
  norms = new Uint16Array(await unpack(matrix.norms));
  sky = new Uint8Array(await unpack(matrix.sky));
  const group = new Int32Array(await unpack(matrix.holes)), half = group.length / 2;
  holes = new Map();
  for (let i = 0; i < half; i++) {
    const first = group[half + i];
    if (!holes.has(first)) holes.set(first, []);
    holes.get(first).push(group[i]);
    holes.set(group[i], holes.get(first));
  }
  printedHoles = new Set(new Int32Array(await unpack(printed.holes)));
  printedSingles = new Set(new Int32Array(await unpack(printed.singles)));
  texts = Array.from({ length: rows }, (_, id) => {
    if (added[id] !== undefined) return added[id];
    if (id >= count) return null;
    try { return strict.decode(bytesOf(id)); } catch { return null; }
  });
}
const bytesOf = (id) => (id < count ? bytes.subarray(starts[id], starts[id + 1]) : encoder.encode(added[id] ?? ""));
const hex = (some) => Array.from(some, (b) => b.toString(16).toUpperCase().padStart(2, "0")).join(" ");

// ---- merging: the adjacent pair of the lowest rank first, the leftmost among equals
const ofByte = new Int32Array(256);
data.bytes.forEach((byte, id) => { ofByte[byte] = id; });

function merge(word, trace) {
  const id = Array.from(encoder.encode(word), (byte) => ofByte[byte]);
  const next = id.map((_, i) => i + 1), before = id.map((_, i) => i - 1), heap = [];
  const rank = (i) => (next[i] < id.length ? merges.get(id[i] * SHIFT + id[next[i]]) : undefined);
  const push = (i) => {
    const to = rank(i);
    if (to !== undefined) sift(heap, to * 0x10000000 + i);
  };
  for (let i = 0; i < id.length; i++) push(i);
  const now = () => { const all = []; for (let i = 0; i < id.length; i = next[i]) all.push(id[i]); return all; };
  while (heap.length) {
    const key = pop(heap), i = key % 0x10000000, to = Math.floor(key / 0x10000000);
    if (id[i] < 0 || rank(i) !== to) continue; // an older pair
    const gone = next[i];
    id[i] = to;
    id[gone] = -1;
    next[i] = next[gone];
    if (next[i] < id.length) before[next[i]] = i;
    push(i);
    if (i) push(before[i]);
    trace?.(now(), to);
  }
  return now();
}

function sift(heap, key) {
  let i = heap.push(key) - 1;
  for (; i; ) {
    const above = (i - 1) >> 1;
    if (heap[above] <= key) break;
    heap[i] = heap[above];
    i = above;
  }
  heap[i] = key;
}
function pop(heap) {
  const least = heap[0], key = heap.pop();
  for (let i = 0; heap.length; ) {
    let child = 2 * i + 1;
    if (child + 1 < heap.length && heap[child + 1] < heap[child]) child += 1;
    if (child >= heap.length || heap[child] >= key) { heap[i] = key; break; }
    heap[i] = heap[child];
    i = child;
  }
  return least;
}

// ---- a text's pieces: [{ text, word or added id, ids }]
function pieces(text) {
  const found = [];
  const plain = (part) => {
    const normal = part.normalize("NFC");
    let at = 0;
    const put = (word) => { if (word) found.push({ word, ids: merge(word) }); };
    for (const match of normal.matchAll(words)) {
      put(normal.slice(at, match.index));
      put(match[0]);
      at = match.index + match[0].length;
    }
    put(normal.slice(at));
  };
  let at = 0;
  for (const match of text.matchAll(special)) {
    plain(text.slice(at, match.index));
    found.push({ word: match[0], ids: [addedIds.get(match[0])], added: true });
    at = match.index + match[0].length;
  }
  plain(text.slice(at));
  return found;
}
const encode = (text) => pieces(text.toWellFormed?.() ?? text).flatMap(({ ids }) => ids);

// ---- how a text looks: what one cannot see as a sign, a circle below a lone mark
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\p{Cn}]/gu;
function seen(text) {
  const signs = text.replace(UNSEEN, (c) => {
    const code = c.codePointAt(0);
    if (code < 0x20) return String.fromCodePoint(0x2400 + code);
    return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  }).replace(/ /g, "␣");
  return /^\p{M}/u.test(signs) ? `◌${signs}` : signs;
}
function named(id) {
  if (texts[id] !== null) return seen(texts[id]);
  return id < count ? `⟨${hex(bytesOf(id))}⟩` : "no token";
}
const codes = (text) => Array.from(text, (c) => `U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`).join(" ");
const isDead = (id) => data.dead[reach[id]];

const chip = (id, note = whole(id)) => make("button", {
  type: "button", class: `chip${isDead(id) ? " dead" : ""}`, "data-id": id, "aria-pressed": String(id === state.id),
  "aria-label": `${named(id)}, id ${id}${isDead(id) ? ", never emitted" : ""}`, onclick: () => choose(id, true),
}, named(id), make("small", { "aria-hidden": "true" }, note));

// ---- the text and its tokens
const state = { id: -1, hits: [], shown: 0 };
const entry = make("textarea", { rows: 3, maxlength: MOST_TEXT, spellcheck: "false", dir: "auto", "aria-label": "text", oninput: () => later() });
entry.value = data.text;
let waiting;
const later = () => { clearTimeout(waiting); waiting = setTimeout(cut, entry.value.length > 3000 ? 250 : 60); };
const normal = make("p", { class: "soft" }), cutInto = make("p", { class: "title" }), chips = make("div", { class: "words", tabindex: 0, role: "group", "aria-label": "words and their tokens" });
const trace = make("ol", { class: "trace", tabindex: 0, "aria-label": "merges, one a line" });
const traced = make("details", {}, make("summary", {}, ""), trace);

function cut() {
  const text = entry.value.toWellFormed?.() ?? entry.value, found = pieces(text), normalised = text.normalize("NFC");
  const tokens = found.reduce((sum, { ids }) => sum + ids.length, 0);
  if (normalised === text) normal.textContent = "Normalisation to NFC changes nothing.";
  else {
    const now = [...normalised], then = [...text];
    let i = 0, tail = 0;
    while (i < now.length && now[i] === then[i]) i += 1;
    while (tail < Math.min(now.length, then.length) - i && now[now.length - 1 - tail] === then[then.length - 1 - tail]) tail += 1;
    const clip = (all) => codes(all.slice(i, Math.min(all.length - tail, i + 8)).join("")) + (all.length - tail > i + 8 ? " …" : "");
    normal.textContent = `Normalisation to NFC makes ${clip(then) || "nothing"} into ${clip(now) || "nothing"}.`;
  }
  cutInto.textContent = `Cut into ${whole(found.length)} word${found.length === 1 ? "" : "s"}, merged into ${whole(tokens)} token${tokens === 1 ? "" : "s"}`;
  chips.replaceChildren(...found.slice(0, 400).map((piece) => make("span", { title: piece.added ? "added token" : "" },
    ...piece.ids.map((id) => {
      const one = chip(id);
      one.addEventListener("click", () => explain(piece));
      return one;
    }))));
  if (found.length > 400) chips.append(`… and ${whole(found.length - 400)} words more`);
  const longest = found.filter(({ added: is }) => !is).sort((a, b) => b.ids.length - a.ids.length)[0];
  explain(longest ?? null);
  say(`${whole([...text].length)} characters, ${whole(found.length)} words, ${whole(tokens)} tokens.`);
}

function explain(piece) {
  traced.hidden = !piece || Boolean(piece.added);
  if (traced.hidden) return;
  traced.firstChild.textContent = `How “${seen(piece.word)}” is merged`;
  trace.replaceChildren();
  if (encoder.encode(piece.word).length > MOST_TRACED) {
    trace.append(make("li", {}, "A word so long is merged, but not told."));
    return;
  }
  const line = (ids, made) => {
    let marked = false;
    trace.append(make("li", {}, ...ids.map((id) => {
      const fresh = id === made && !marked;
      marked ||= fresh;
      return make("span", { class: fresh ? "new" : false }, named(id));
    }), made === undefined ? "" : ` rank ${whole(made)}`));
  };
  line(Array.from(encoder.encode(piece.word), (byte) => ofByte[byte]));
  merge(piece.word, line);
}

// ---- one token
const card = make("section", { class: "card", tabindex: -1, "aria-live": "off" });
const map = make("canvas", { role: "img" });

function why(id) {
  const text = texts[id], what = classes[reach[id]];
  if (notes[id]) return `${what}: ${notes[id]}`;
  if (what.startsWith("changed")) return `${what}: ${codes(text)} becomes ${codes(text.normalize("NFC"))}`;
  if (what.startsWith("split")) return `${what}: ${pieces(text).map(({ word }) => `“${seen(word)}”`).join(" | ")}`;
  if (what === "reachable") return "reachable, from its own text";
  return what;
}

function choose(id, scroll) {
  state.id = id;
  for (const one of root.querySelectorAll(".chip")) one.setAttribute("aria-pressed", String(Number(one.dataset.id) === id));
  card.setAttribute("aria-label", `token ${id}`);
  const text = texts[id], own = bytesOf(id), hole = holes.get(id);
  const put = (name, ...what) => make("div", {}, make("dt", {}, name), make("dd", {}, ...what));
  const facts = [put("id", whole(id)), put("class", why(id)), put("bytes", make("span", { class: "mono" }, own.length > 64 ? `${hex(own.subarray(0, 64))} …` : hex(own) || "none"))];
  if (text !== null && [...text].length <= 24) facts.push(put("code points", make("span", { class: "mono" }, codes(text))));
  facts.push(put("script", scripts[script[id]]));
  if (id >= FIRST && id < count) facts.push(put("built from", chip(left[id - FIRST]), " ", chip(right[id - FIRST])));
  const where = id < matrix.rows ? `longitude ${number(sky[id] * matrix.degrees - 180)}°, latitude ${number(sky[matrix.rows + id] * matrix.degrees - 90)}°` : "not at hand";
  const others = hole ? hole.filter((other) => other !== id) : [];
  const ofMatrix = [
    put("norm", id < matrix.rows ? number(norms[id] * matrix.unit, 3) : "not at hand"), put("place in the sky", where),
    put("identical rows", hole ? `${whole(others.length)} other${others.length === 1 ? "" : "s"}: ` : "none", ...others.slice(0, 6).flatMap((other) => [chip(other), " "]), others.length > 6 ? "…" : "")];
  const rank = printed.known[id];
  const ofPrinted = printedHoles.has(id)
    ? `in a black hole, ${rank ? `number ${rank} of ${printed.populations.length}, with ${whole(printed.populations[rank - 1])} rows` : "which one was not printed"}`
    : printedSingles.has(id) ? "in the dead cluster, alone in its place" : "outside the dead cluster";
  card.replaceChildren(
    make("p", { class: "name", dir: "auto" }, named(id)), make("dl", {}, ...facts),
    make("p", { class: "title" }, `Its row in ${matrix.name}`), make("dl", {}, ...ofMatrix), map,
    make("p", { class: "title" }, `Its row in ${printed.name}`),
    make("p", {}, `As printed: ${ofPrinted}. Its norm and place are not at hand.`),
    make("p", { class: "soft" }, make("a", { href: `#token-${id}` }, `Link to token ${whole(id)}`)));
  map.setAttribute("aria-label", `The sky of ${matrix.name}: rows by direction, brighter where they crowd; this token at ${where}`);
  repaint();
  say(`Token ${id}, ${named(id)}: ${why(id)}.`);
  if (scroll) {
    history.replaceState(null, "", `#token-${id}`);
    const { top, bottom } = card.getBoundingClientRect(); // brought into sight where it is out of it
    if (top > innerHeight - 160 || bottom < 160) card.scrollIntoView({ block: "nearest" });
  }
}

let heat;
function paint() {
  map.hidden = state.id >= matrix.rows; // the vocabulary may be longer than the matrix
  if (state.id < 0 || map.hidden || !map.isConnected) return;
  const degrees = matrix.degrees, across = 360 / degrees, down = 180 / degrees;
  if (!heat) {
    heat = new Float64Array(across * down);
    for (let id = 0; id < matrix.rows; id++) heat[Math.min(sky[matrix.rows + id], down - 1) * across + Math.min(sky[id], across - 1)] += 1;
  }
  // the crowded part: where the rows are, with a margin
  const inside = (n, at) => { let low = n, high = 0; heat.forEach((v, i) => { if (v > 8) { low = Math.min(low, at(i)); high = Math.max(high, at(i)); } }); return [Math.max(0, low - 4), Math.min(n - 1, high + 4)]; };
  let [x0, x1] = inside(across, (i) => i % across), [y0, y1] = inside(down, (i) => Math.floor(i / across));
  x0 = Math.min(x0, sky[state.id] - 2); x1 = Math.max(x1, sky[state.id] + 2);
  y0 = Math.min(y0, sky[matrix.rows + state.id] - 2); y1 = Math.max(y1, sky[matrix.rows + state.id] + 2);
  const width = map.clientWidth || 300, each = width / (x1 - x0 + 1);
  const { context: pen, height } = sharp(map, Math.min(300, each * (y1 - y0 + 1))), tall = height / (y1 - y0 + 1);
  const most = Math.log1p(heat.reduce((a, b) => Math.max(a, b), 0));
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, width, height);
  for (let y = y0; y <= y1; y++) for (let x = x0; x <= x1; x++) {
    const v = heat[y * across + x];
    if (!v) continue;
    const light = 0.12 + 0.88 * Math.log1p(v) / most, [left_, top] = [Math.round((x - x0) * each), Math.round((y1 - y) * tall)];
    pen.fillStyle = `rgb(${[255, 236, 200].map((part) => Math.round(part * light))})`;
    pen.fillRect(left_, top, Math.round((x - x0 + 1) * each) - left_, Math.round((y1 - y + 1) * tall) - top);
  }
  const [px, py] = [(sky[state.id] - x0 + 0.5) * each, (y1 - sky[matrix.rows + state.id] + 0.5) * tall];
  pen.lineWidth = 2;
  for (const [size, ink] of [[9, "#000"], [7, "#56b4e9"]]) {
    pen.strokeStyle = ink;
    pen.beginPath();
    pen.arc(px, py, size, 0, 2 * Math.PI);
    pen.stroke();
  }
}

// ---- searching
const query = make("input", { type: "search", size: 18, autocomplete: "off", spellcheck: "false", oninput: () => { clearTimeout(searching); searching = setTimeout(search, 120); } });
let searching;
const pick = (all, words_) => make("select", { onchange: () => search() }, make("option", { value: -1 }, words_),
  ...all.map((name, i) => [name, i]).filter(([name]) => name).map(([name, i]) => make("option", { value: i }, name)));
const byClass = pick(["never emitted", "can be emitted", ...classes], "any class"), byScript = pick(scripts, "any script");
const summary = make("p", { class: "soft" }), hits = make("div", { class: "hits", tabindex: 0, role: "group", "aria-label": "tokens found" });
const more = make("button", { type: "button", onclick: () => list() }, "Show more");

function search() {
  const asked = query.value.toLowerCase(), kind = Number(byClass.value), of = Number(byScript.value), found = [];
  const id = /^\d+$/.test(asked.trim()) ? Number(asked) : -1;
  if (id >= 0 && id < rows) found.push(id);
  for (let i = 0; i < rows; i++) {
    if (i === id || (kind >= 2 && reach[i] !== kind - 2) || (kind === 0 && !isDead(i)) || (kind === 1 && isDead(i)) || (of >= 0 && script[i] !== of)) continue;
    if (asked && !(texts[i] !== null && texts[i].toLowerCase().includes(asked))) continue;
    found.push(i);
  }
  state.hits = found;
  state.shown = 0;
  hits.replaceChildren();
  summary.textContent = `${whole(found.length)} token${found.length === 1 ? "" : "s"}.`;
  list();
  say(summary.textContent);
}
function list() {
  const part = state.hits.slice(state.shown, state.shown + MOST_SHOWN);
  hits.append(...part.map((id) => chip(id)));
  state.shown += part.length;
  more.hidden = state.shown >= state.hits.length;
}

// ---- all that is shown
const output = make("output", { "aria-live": "polite" });
const say = speaker(output);
const examples = make("div", { class: "row" }, make("span", { class: "soft" }, "or try"), ...Object.entries(data.examples).map(([name, text]) =>
  make("button", { type: "button", onclick: () => { entry.value = text; cut(); } }, name)));
root.append(make("p", { class: "soft wait" }, "Unpacking the vocabulary …"));
const repaint = painted(card, paint);

function linked() {
  const match = /^#token-(\d{1,6})$/.exec(location.hash), id = match ? Number(match[1]) : -1;
  if (id >= 0 && id < rows) { choose(id, false); card.scrollIntoView({ block: "center" }); }
  return id >= 0;
}

load().then(() => {
  root.querySelector(".wait").remove();
  root.append(make("p", { class: "title" }, "Text"), entry, make("div", { class: "row" }), examples, normal, cutInto, chips, traced, output, card,
    make("p", { class: "title" }, "All tokens"),
    make("div", { class: "row" }, make("label", {}, "text or id", query), make("label", {}, "class", byClass), make("label", {}, "script", byScript)),
    summary, hits, more);
  byClass.value = 0;
  search();
  choose(data.first, false);
  cut();
  linked();
  addEventListener("hashchange", linked);
  root.explorer = { state, encode, pieces, merge, bytesOf, named, why, choose, holes, norms, sky, reach, script, isDead, texts, merges };
});
