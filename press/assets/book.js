// The pages' own script: theme, menu, search, headings' links, copying code, interactive figures.
// Nothing here asks the network for anything outside the book.

const root = new URL(document.documentElement.dataset.root || "./", location.href);
const byAction = (name) => document.querySelectorAll(`[data-action="${name}"]`);

function make(tag, attributes = {}, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
}

// ---- theme: the reader's system decides until the reader does
const dark = matchMedia("(prefers-color-scheme: dark)");
function theme() {
  return document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
}
for (const button of byAction("theme")) {
  button.addEventListener("click", () => {
    const next = theme() === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try { localStorage.setItem("theme", next); } catch { /* private windows */ }
  });
}

// ---- the contents as a drawer on small screens
function menu(open) {
  document.body.classList.toggle("menu-open", open);
  for (const b of byAction("menu")) if (b.tagName === "BUTTON") b.setAttribute("aria-expanded", open);
}
for (const element of byAction("menu")) {
  element.addEventListener("click", () => menu(!document.body.classList.contains("menu-open")));
}
const current = document.querySelector(".sidebar [aria-current]");
if (current) {
  const sidebar = document.querySelector(".sidebar");
  const below = current.offsetTop + current.offsetHeight - sidebar.clientHeight;
  if (below > 0) sidebar.scrollTop = current.offsetTop - sidebar.clientHeight / 2;
}

// ---- search: Pagefind where pages are served; a plain scan of the texts where they are opened
// from the disk, because browsers let no file:// page load Pagefind's index
const dialog = document.querySelector("dialog.search");
const field = dialog.querySelector("input");
const note = dialog.querySelector(".search-note");
const hits = dialog.querySelector(".search-hits");
let engine;

async function pagefind() {
  const index = await import(new URL("pagefind/pagefind.js", root));
  await index.options({ excerptLength: 22 });
  await index.init();
  return async (query) => {
    const found = await index.search(query);
    const pages = await Promise.all(found.results.slice(0, 8).map((result) => result.data()));
    return pages.flatMap((page) =>
      page.sub_results.slice(0, 3).map((part) => ({
        url: part.url,
        page: page.meta.title,
        title: part.title,
        excerpt: part.excerpt, // Pagefind escapes the text and marks the words
      })));
  };
}

function scan() {
  return new Promise((resolve, reject) => {
    window.bookTexts = (texts) => resolve(async (query) => {
      const words = query.toLowerCase().split(/\s+/).filter(Boolean);
      const scored = [];
      for (const text of texts) {
        const title = text.title.toLowerCase();
        const body = text.text.toLowerCase();
        if (!words.every((word) => title.includes(word) || body.includes(word))) continue;
        const score = words.reduce(
          (sum, word) => sum + (title.includes(word) ? 20 : 0) + body.split(word).length - 1, 0);
        scored.push({ score, text, at: Math.max(0, body.indexOf(words[0]) - 60) });
      }
      scored.sort((a, b) => b.score - a.score);
      return scored.slice(0, 16).map(({ text, at }) => ({
        url: new URL(text.url, root).href,
        page: text.page,
        title: text.title,
        excerpt: marked(text.text.slice(at, at + 180), words),
      }));
    });
    document.head.append(
      make("script", { src: new URL("assets/search.js", root).href, onerror: reject }));
  });
}

function marked(text, words) {
  const safe = make("span", { textContent: text }).innerHTML;
  const pattern = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|");
  return safe.replace(new RegExp(pattern, "gi"), "<mark>$&</mark>");
}

async function search() {
  const query = field.value.trim();
  if (!query) { hits.replaceChildren(); note.textContent = ""; return; }
  try {
    engine ||= location.protocol === "file:" ? scan() : pagefind().catch(scan);
    const found = await (await engine)(query);
    if (query !== field.value.trim()) return; // the reader typed on
    note.textContent = found.length ? "" : `Nothing found for “${query}”.`;
    hits.replaceChildren(...found.map((hit) => {
      const link = make("a", { href: hit.url });
      if (hit.page && hit.page !== hit.title) {
        link.append(make("span", { className: "hit-page", textContent: hit.page }));
      }
      link.append(
        make("span", { className: "hit-title", textContent: hit.title }),
        make("span", { className: "hit-excerpt", innerHTML: hit.excerpt }));
      return make("li", {}, link);
    }));
  } catch {
    engine = undefined;
    note.textContent = "The search index could not be read.";
  }
}

function openSearch() {
  menu(false);
  if (!dialog.open) dialog.showModal();
  field.select();
}
let waiting;
field.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(search, 120); });
field.addEventListener("keydown", (event) => {
  if (event.key === "Enter") { event.preventDefault(); hits.querySelector("a")?.click(); }
});
hits.addEventListener("click", (event) => { if (event.target.closest("a")) dialog.close(); });
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
for (const button of byAction("search")) button.addEventListener("click", openSearch);
addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if ((event.key === "/" && !typing) || (event.key === "k" && (event.ctrlKey || event.metaKey))) {
    event.preventDefault();
    openSearch();
  } else if (event.key === "Escape") menu(false);
});
const asked = new URLSearchParams(location.search).get("q"); // a link can carry a search
if (asked) { field.value = asked; openSearch(); search(); }

// ---- a link on every heading, a copy button on every piece of code
for (const heading of document.querySelectorAll("article :is(h2, h3, h4)[id]")) {
  heading.append(make("a", {
    className: "anchor", href: `#${heading.id}`, textContent: "#", ariaLabel: "Link to this section",
  }));
}
if (navigator.clipboard) {
  for (const code of document.querySelectorAll(".cell-code div.sourceCode")) {
    const button = make("button", { type: "button", className: "copy", textContent: "Copy" });
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(code.querySelector("code").textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    code.append(button);
  }
}

// ---- what is wider than the column can be scrolled by keyboard, too
const reach = new ResizeObserver((seen) => {
  for (const { target } of seen) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const wide of document.querySelectorAll("pre, .display-math")) reach.observe(wide);

// ---- where the reader is, in the page's own contents
const entries = new Map();
for (const link of document.querySelectorAll(".page-toc a[href^='#']")) {
  const target = document.getElementById(decodeURIComponent(link.hash.slice(1)));
  if (target) entries.set(target, link);
}
if (entries.size) {
  const mark = () => {
    let here;
    for (const target of entries.keys()) if (target.getBoundingClientRect().top < 120) here = target;
    for (const [target, link] of entries) link.classList.toggle("here", target === here);
  };
  addEventListener("scroll", mark, { passive: true });
  mark();
}

// ---- interactive figures
for (const holder of document.querySelectorAll(".plotly-figure")) {
  if (!window.Plotly) break;
  const figure = JSON.parse(holder.querySelector("script").textContent);
  const canvas = make("div", { className: "plotly-canvas" });
  holder.append(canvas);
  const layout = { ...figure.layout, autosize: true, width: undefined };
  window.Plotly.newPlot(canvas, figure.data, layout, {
    responsive: true, displaylogo: false, modeBarButtonsToRemove: ["sendChartToCloud"],
  });
}
