-- The whole book, numbered and cited, made ready for Pandoc's HTML writer: links between pages,
-- folded code, callouts, numbered equations, tables that scroll, and the texts for searching.

local function raw(html) return pandoc.RawBlock("html", html) end

local function escape(text)
  return (text:gsub("[&<>\"]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }))
end

local function code_cell(div)
  local fold, summary = div.attributes.fold, div.attributes.summary or "Code"
  div.attributes.fold, div.attributes.summary = nil, nil
  if fold == "false" then
    if div.classes:includes("parameters") then
      div.content:insert(1, raw('<p class="code-title">' .. escape(summary) .. "</p>"))
    end
    return div
  end
  local open = fold == "show" and " open" or ""
  local blocks = pandoc.Blocks {
    raw('<details class="code-fold"' .. open .. "><summary>" .. escape(summary) .. "</summary>"),
  }
  blocks:extend(div.content)
  blocks:insert(raw("</details>"))
  div.content = blocks
  return div
end

local CALLOUTS = { note = true, tip = true, warning = true, important = true, caution = true }

local function callout_kind(div)
  for _, class in ipairs(div.classes) do
    local kind = class:match("^callout%-(%a+)$")
    if CALLOUTS[kind] then return kind end
  end
end

local function callout(div, kind)
  local title = div.attributes.title or kind:sub(1, 1):upper() .. kind:sub(2)
  local blocks = pandoc.Blocks {}
  local collapse = div.attributes.collapse
  if collapse then
    local open = collapse == "false" and " open" or ""
    blocks:insert(raw("<details" .. open .. '><summary class="callout-title">' .. escape(title)
      .. "</summary>"))
  else
    blocks:insert(raw('<p class="callout-title">' .. escape(title) .. "</p>"))
  end
  blocks:insert(pandoc.Div(div.content, pandoc.Attr("", { "callout-body" })))
  if collapse then blocks:insert(raw("</details>")) end
  local attr = pandoc.Attr(div.identifier, { "callout", "callout-" .. kind }, { role = "note" })
  return pandoc.Div(blocks, attr)
end

local function display(math)
  return pandoc.Span({ math }, pandoc.Attr("", { "display-math" }))
end

-- A group, not a region: a page of tables would have as many landmarks, all of one name.
local function scrolling(table_)
  local caption, identifier = table_.caption, table_.identifier
  local label = pandoc.utils.stringify(caption.long):match("^Table[^:]*") or "Table"
  local scroll = pandoc.Attr("", { "table-scroll" }, -- pairs: a table of names has no order
    { { "role", "group" }, { "aria-label", label }, { "tabindex", "0" } })
  if #caption.long == 0 then return pandoc.Div({ table_ }, scroll) end
  table_.caption, table_.identifier = { long = {} }, ""
  local attr = pandoc.Attr(identifier, { "table-figure" })
  return pandoc.Figure({ pandoc.Div({ table_ }, scroll) }, caption, attr)
end

local SHAPES = {
  traverse = "topdown",
  Div = function(div)
    if div.classes:includes("cell-code") then return code_cell(div) end
    if div.classes:includes("layout") then
      div.attributes.style = "--columns: " .. (div.attributes.columns or "1")
      div.attributes.columns = nil
      return div
    end
    local kind = callout_kind(div)
    if kind then return callout(div, kind) end
  end,
  Span = function(span)
    if span.classes:includes("equation") then
      local number = pandoc.Span({ "(" .. span.attributes.number .. ")" },
        pandoc.Attr("", { "equation-number" }))
      span.attributes.number = nil
      span.content = { display(span.content[1]), number }
      return span, false
    end
  end,
  Math = function(math)
    if math.mathtype == "DisplayMath" then return display(math), false end
  end,
  Table = function(table_) return scrolling(table_), false end,
  Header = function(header)
    local number = header.attributes.number
    header.attributes.number = nil
    if number then
      header.content:insert(1, pandoc.Space())
      header.content:insert(1,
        pandoc.Span({ number }, pandoc.Attr("", { "header-section-number" })))
    end
    return header
  end,
}

-- Browsers may break a line between a formula and the comma after it; a book does not.
local function glued(inlines)
  local result = pandoc.Inlines {}
  local i = 1
  while i <= #inlines do
    local inline, after = inlines[i], inlines[i + 1]
    local mark, rest
    if inline.t == "Math" and inline.mathtype == "InlineMath" and after and after.t == "Str" then
      mark, rest = after.text:match("^([%.,;:!?%)%]]+)(.*)$")
    end
    if mark then
      result:insert(pandoc.Span({ inline, pandoc.Str(mark) }, pandoc.Attr("", { "nobreak" })))
      if rest ~= "" then result:insert(pandoc.Str(rest)) end
      i = i + 1
    else
      result:insert(inline)
    end
    i = i + 1
  end
  return result
end

-- ---------------------------------------------------------------- links between pages

local function identifiers(page)
  local found = {}
  local function note(element) if element.identifier ~= "" then found[element.identifier] = true end end
  page:walk {
    Block = function(b) if b.attr then note(b) end end,
    Inline = function(i) if i.attr then note(i) end end,
  }
  return found
end

local function linked(page, own, elsewhere)
  return page:walk {
    Link = function(link)
      local label = link.target:match("^#(.+)$")
      if label and not own[label] and elsewhere[label] then
        link.target = (page.attributes.root or "") .. elsewhere[label] .. "#" .. label
        return link
      end
    end,
  }
end

-- ---------------------------------------------------------------- texts for searching

-- Words only: formulas would show as TeX, and code is not what a reader looks for here.
local function plain(block)
  if block.t == "CodeBlock" or block.t == "RawBlock" then return "" end
  if block.t == "Div" and block.classes:includes("cell-code") then return "" end
  local whole = block:walk {
    Math = function(math)
      if math.mathtype == "InlineMath" and not math.text:find("\\", 1, true) then
        return pandoc.Str((math.text:gsub("[{}_^]", "")))
      end
      return pandoc.Str("…")
    end,
    -- stringify leaves footnotes out; a reader may look for them
    Note = function(note) return pandoc.Span(pandoc.utils.blocks_to_inlines(note.content)) end,
  }
  return pandoc.utils.stringify(whole)
end

local function search_records(page, records)
  local record, page_title
  for _, block in ipairs(page.content) do
    if block.t == "Header" and block.level <= 3 then
      page_title = page_title or pandoc.utils.stringify(block.content)
      record = {
        url = pandoc.MetaString(page.attributes.url .. "#" .. block.identifier),
        page = pandoc.MetaString(page_title),
        title = pandoc.MetaString(pandoc.utils.stringify(block.content)),
        words = {},
      }
      records:insert(record)
    elseif record then
      table.insert(record.words, plain(block))
    end
  end
end

function Pandoc(doc)
  local elsewhere, own, records = {}, {}, pandoc.List {}
  for i, page in ipairs(doc.blocks) do
    own[i] = identifiers(page)
    for label in pairs(own[i]) do elsewhere[label] = elsewhere[label] or page.attributes.url end
    search_records(page, records)
  end
  for i, page in ipairs(doc.blocks) do
    local shaped = page:walk(SHAPES):walk { Inlines = glued }
    doc.blocks[i] = linked(shaped, own[i], elsewhere)
  end
  doc.meta.search = records:map(function(record)
    local text = table.concat(record.words, " "):gsub("%s+", " ")
    record.words, record.text = nil, pandoc.MetaString(text)
    return record
  end)
  return doc
end
