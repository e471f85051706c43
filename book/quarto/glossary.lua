-- Terms of the glossary are links where a page first uses them. Both editions use this filter: Quarto
-- page by page and for the PDF all in one, the press on the whole book, a Div of class `page` a page.
--
-- The glossary is a page whose definition lists have terms of the form `[hole]{#term-hole also="holes"}`.
-- A term is found in running text under its name, that name with an s, and each name in `also` (divided
-- by semicolons); not in headings, tables, captions, code or links.

local GLOSSARY = "chapters/reference/01-glossary"

local function names(span)
  local found = { pandoc.utils.stringify(span.content) }
  table.insert(found, found[1] .. "s")
  for name in (span.attributes.also or ""):gmatch("[^;]+") do
    table.insert(found, (name:gsub("^%s+", ""):gsub("%s+$", "")))
  end
  return found
end

-- The terms of a glossary by the first word of each name, the longest names first.
local function terms_in(blocks)
  local found, count = {}, 0
  blocks:walk({ Span = function(span)
    if not span.identifier:match("^term%-") then return nil end
    count = count + 1
    for _, name in ipairs(names(span)) do
      local words = {}
      for word in name:lower():gmatch("%S+") do table.insert(words, word) end
      found[words[1]] = found[words[1]] or {}
      table.insert(found[words[1]], { words = words, id = span.identifier })
    end
  end })
  for _, entries in pairs(found) do
    table.sort(entries, function(a, b) return #a.words > #b.words end)
  end
  return found, count
end

local function parted(text)
  return text:match("^([%(%[]*)(.-)([%.,;:!%?%)%]]*)$")
end

-- Where the name `words` ends if it begins at `at`; nil if it does not.
local function reaches(inlines, at, words)
  for i, word in ipairs(words) do
    local inline = inlines[at]
    if not inline or inline.t ~= "Str" then return nil end
    local before, core, after = parted(inline.text)
    if core:lower() ~= word or (i > 1 and before ~= "") or (i < #words and after ~= "") then
      return nil
    end
    if i == #words then return at end
    local space = inlines[at + 1]
    if not space or (space.t ~= "Space" and space.t ~= "SoftBreak") then return nil end
    at = at + 2
  end
end

local function linked(inlines, terms, used, target)
  local result, at = pandoc.Inlines({}), 1
  while at <= #inlines do
    local inline, found, last = inlines[at], nil, nil
    if inline.t == "Str" then
      local _, core = parted(inline.text)
      for _, term in ipairs(terms[core:lower()] or {}) do
        last = not found and not used[term.id] and reaches(inlines, at, term.words) or last
        if last and not found then found = term end
      end
    end
    if found then
      used[found.id] = true
      local before, first = parted(inline.text)
      local _, core, after = parted(inlines[last].text)
      local words = pandoc.Inlines({ pandoc.Str(first) })
      for i = at + 1, last - 1 do words:insert(inlines[i]) end
      if last > at then words:insert(pandoc.Str(core)) end
      if before ~= "" then result:insert(pandoc.Str(before)) end
      result:insert(pandoc.Link(words, target .. "#" .. found.id, "", pandoc.Attr("", { "term" })))
      if after ~= "" then result:insert(pandoc.Str(after)) end
      at = last
    else
      result:insert(inline)
    end
    at = at + 1
  end
  return result
end

local function whole(element) return element, false end

local function page(blocks, terms, target)
  if select(2, terms_in(blocks)) > 0 then -- the glossary itself
    return blocks:walk({ Span = function(span)
      span.attributes.also = nil
      return span
    end })
  end
  local used = {}
  return blocks:walk({
    traverse = "topdown",
    Span = function(span) -- Quarto's titles for its sidebar travel through the page, unseen
      if span.classes:includes("hidden") then return span, false end
    end,
    Header = whole, Table = whole, Figure = whole, Link = whole, Cite = whole, Code = whole,
    Div = function(div)
      for _, class in ipairs(div.classes) do
        if class:match("^cell") or class == "panel" or class == "hidden" then return div, false end
      end
      if div.identifier:match("^fig%-") or div.identifier:match("^tbl%-") then return div, false end
    end,
    Inlines = function(inlines) return linked(inlines, terms, used, target) end,
  })
end

-- The glossary's own file, where only another page is at hand; and the way to its page.
local function elsewhere()
  local root = quarto.project.directory or "."
  local file = io.open(pandoc.path.join({ root, GLOSSARY .. ".qmd" }))
  if not file then return nil end
  local text = file:read("a"):gsub("^%-%-%-.-\n%-%-%-\n", "")
  file:close()
  local here = pandoc.path.make_relative(quarto.doc.input_file, root)
  local _, depth = here:gsub("/", "")
  return pandoc.read(text, "markdown").blocks, ("../"):rep(depth) .. GLOSSARY .. ".html"
end

function Pandoc(document)
  local terms, count = terms_in(document.blocks)
  local target = ""
  if count == 0 and quarto and quarto.doc.is_format("html") then
    local glossary, way = elsewhere()
    if glossary then
      terms, count = terms_in(glossary)
      target = way
    end
  end
  if count == 0 then return document end
  local pressed = false
  for i, block in ipairs(document.blocks) do
    if block.t == "Div" and block.classes:includes("page") then
      pressed = true
      block.content = page(block.content, terms, target)
      document.blocks[i] = block
    end
  end
  if pressed then return document end
  local all, one = pandoc.Blocks({}), pandoc.Blocks({}) -- Quarto's PDF: chapter after chapter
  for _, block in ipairs(document.blocks) do
    if block.t == "Header" and block.level == 1 then
      all:extend(page(one, terms, target))
      one = pandoc.Blocks({})
    end
    one:insert(block)
  end
  all:extend(page(one, terms, target))
  document.blocks = all
  return document
end
