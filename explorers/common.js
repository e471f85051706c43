// What all explorers share: making elements, saying things, numbers in words, packed data.
// Text from outside goes in as text alone: nothing here or in an explorer parses HTML.

const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const superscript = (n) => String(n).replace(/[-0-9]/g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);
const whole = (n) => Math.round(n).toLocaleString("en-US").replace("-", "−");
const percent = (share, places = 1) => `${(100 * share).toFixed(places)} %`;

// A number with so many significant digits at most, as the book writes it: 0.37, −7.3 × 10⁻³⁹.
function number(x, digits = 4) {
  if (Number.isNaN(x)) return "not a number";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  if (x === 0) return Object.is(x, -0) ? "−0" : "0";
  const size = Math.abs(x);
  let text;
  if (size >= 1e-4 && size < 1e6) {
    text = String(Number(x.toPrecision(digits)));
  } else {
    const [mantissa, exponent] = x.toExponential(digits - 1).split("e");
    text = `${Number(mantissa)} × 10${superscript(Number(exponent))}`;
  }
  return text.replace(/^-/, "−");
}

// What a reader types as a number: 0.37, 1e-9, 1.5 × 10⁻⁹, 2^-6. NaN if it is none.
function typed(text) {
  const plain = text.trim().replace(/[−–]/g, "-").replace(/\s/g, "").replace(/^\+/, "");
  if (plain === "") return NaN;
  const power = /^(-?)2\^(-?\d+)$/.exec(plain);
  if (power) return (power[1] ? -1 : 1) * 2 ** Number(power[2]);
  const digits = [..."⁻⁰¹²³⁴⁵⁶⁷⁸⁹"];
  const raised = plain.replace(/[×x*]10\^?([⁻⁰¹²³⁴⁵⁶⁷⁸⁹\-\d]+)$/, (_, e) =>
    "e" + [...e].map((c) => (digits.includes(c) ? "-0123456789"[digits.indexOf(c)] : c)).join(""));
  return Number(raised);
}

// One live region for what has changed: said once the reader rests, so that a drag is no chatter.
function speaker(output) {
  let waiting;
  return (text) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { if (output.textContent !== text) output.textContent = text; }, 250);
  };
}

const fact = (name) => {
  const value = make("dd");
  return { node: make("div", {}, make("dt", {}, name), value), value };
};

// Radio buttons of one name; `change` hears the value.
function choice(name, legend, options, chosen, change) {
  const group = `${root.id}-${name}`;
  const labels = Object.entries(options).map(([value, words]) =>
    make("label", {},
      make("input", { type: "radio", name: group, value, checked: value === chosen,
        onchange: () => change(value) }), words));
  return make("fieldset", {}, ...(legend ? [make("legend", {}, legend)] : []), ...labels);
}

function slider(words, attributes, change) {
  const said = make("span", { class: "mono" });
  const input = make("input", { type: "range", ...attributes, oninput: () => change(Number(input.value)) });
  return { node: make("label", {}, words, input, said), input, said };
}

// Bytes that Python deflated and spelled in base64 -> ArrayBuffer.
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

// Calls `paint` now, when the width changes and when the page turns light or dark.
function painted(element, paint) {
  let asked = 0;
  const again = () => {
    if (!asked) asked = requestAnimationFrame(() => { asked = 0; paint(); });
  };
  new ResizeObserver(again).observe(element);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  for (const node of [document.documentElement, document.body]) {
    new MutationObserver(again).observe(node, { attributeFilter: ["class", "data-theme", "data-bs-theme"] });
  }
  return again;
}

const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

// A canvas with as many pixels as the screen has, and its context in CSS pixels.
function sharp(canvas, height) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth || 600;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return { context, width, height };
}
