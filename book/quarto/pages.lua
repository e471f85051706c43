-- What Quarto's pages need besides a style sheet: the numbers of equations at the margin, the labels of
-- captions in bold, and a cover with a way in on the first page. For HTML only; the PDF has both from book/quarto/typst-show.typ.

if not quarto.doc.is_format("html") then return {} end

-- Quarto sets an equation's number into its formula, `\qquad(2.1)`.
local function equation(span)
  local math = span.content[1]
  if not span.identifier:match("^eq%-") or not math or math.t ~= "Math" then return nil end
  local formula, number = math.text:match("^(.*)\\qquad(%([%w.]+%))%s*$")
  if not number then return nil end
  math.text = formula
  span.classes:insert("equation")
  span.content = { pandoc.Span({ math }, pandoc.Attr("", { "formula" })),
    pandoc.Span({ number }, pandoc.Attr("", { "equation-number" })) }
  return span
end

-- "Figure 2.1:" gets a span of its own.
local function captions(blocks)
  for i = 2, #blocks do
    local before, caption = blocks[i - 1], blocks[i]
    local is_caption = before.t == "RawBlock" and before.text:match("^<figcaption")
    for last = 1, is_caption and caption.content and 6 or 0 do
      local inline = caption.content[last]
      if inline and inline.t == "Str" and inline.text:match(":$") then
        local label = pandoc.Inlines {}
        for _ = 1, last do label:insert(caption.content:remove(1)) end
        caption.content:insert(1, pandoc.Span(label, pandoc.Attr("", { "caption-label" })))
        break
      end
    end
  end
  return blocks
end

local function said(value) return pandoc.utils.stringify(value or "") end

-- The address of the chapter that the first part opens with.
local function first_chapter(book)
  for _, entry in ipairs(book.chapters) do
    if pandoc.utils.type(entry) == "table" and entry.chapters then
      return (said(entry.chapters[1]):gsub("%.qmd$", ".html"))
    end
  end
end

local function cover(book)
  local links = { pandoc.Link("Begin reading", first_chapter(book), "", { class = "button" }) }
  if book.downloads then
    local file = said(book.title):gsub("%s+", "-") .. ".pdf"
    table.insert(links, pandoc.Link("PDF", file, "", { class = "button quiet" }))
  end
  local function line(content, class)
    return pandoc.Div({ pandoc.Para(content) }, pandoc.Attr("", { "cover-" .. class }))
  end
  return pandoc.Div({
    pandoc.RawBlock("html", '<div class="cover-star" aria-hidden="true"></div>'),
    line(said(book.title), "title"),
    line(said(book.subtitle), "subtitle"),
    line(said(book.author), "author"),
    line(links, "links"),
  }, pandoc.Attr("", { "cover" }))
end

function Pandoc(document)
  local blocks = document.blocks:walk({ Span = equation, Blocks = captions })
  local file = pandoc.path.make_relative(quarto.doc.input_file, quarto.project.directory or ".")
  if file == "index.qmd" and document.meta.book then blocks:insert(1, cover(document.meta.book)) end
  document.blocks = blocks
  return document
end
