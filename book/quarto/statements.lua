-- Sentences carry guards (lib.claims.holds). Where one fails, the sentence before it is marked, and a
-- callout below the page's title lists what does not hold in this run. Both editions use this filter:
-- Quarto page by page and for the PDF all in one, the press on the whole book, a Div of class `page` a
-- page.

local function ends_sentence(inline)
  return inline.t == "Str" and inline.text:match("[.!?][\"'”’)]*$") ~= nil
end

local function is_space(inline)
  return inline.t == "Space" or inline.t == "SoftBreak"
end

local function is_guard(inline, class)
  return inline.t == "Span" and inline.classes:includes(class)
end

-- Whether a sentence begins at the place `at`: guards that hold are not seen.
local function begins(inlines, at)
  local before = at - 1
  while before > 0 and is_guard(inlines[before], "holds") do before = before - 1 end
  return before == 0 or ends_sentence(inlines[before]) or is_guard(inlines[before], "fails")
end

-- The places of the first and the last inline of the sentence that ends before `at`.
local function extent(inlines, at)
  local last = at - 1
  while last > 0 and is_space(inlines[last]) do last = last - 1 end
  local first = last
  while first > 1 and not begins(inlines, first) do first = first - 1 end
  while first < last and is_space(inlines[first]) do first = first + 1 end
  return first, last
end

local function mark(inlines, found)
  local at = 1
  while at <= #inlines do
    local first, last = 0, 0
    if is_guard(inlines[at], "fails") then first, last = extent(inlines, at) end
    if last > 0 then
      local sentence = pandoc.Inlines({})
      for i = first, last do sentence:insert(inlines[i]) end
      found:insert(sentence:clone())
      for _ = first, last do inlines:remove(first) end
      inlines:insert(first, pandoc.Span(sentence, pandoc.Attr("", { "failing-sentence" })))
      at = at - (last - first)
    end
    at = at + 1
  end
  return inlines
end

local function listed(sentences)
  local items = pandoc.List()
  for _, sentence in ipairs(sentences) do
    items:insert({ pandoc.Plain(sentence) })
  end
  local intro = pandoc.Para({ pandoc.Str("The text of this page was written for the run that the book"
    .. " shows. With the matrix, the parameters or the scale of this run, these sentences fail:") })
  local title, content = "What does not hold here", { intro, pandoc.BulletList(items) }
  if quarto then -- has read the callouts of the page before this filter runs
    return (quarto.Callout({ type = "warning", title = title, content = content }))
  end
  return pandoc.Div(content, pandoc.Attr("", { "callout-warning" }, { title = title }))
end

local function page(blocks)
  local found = pandoc.List()
  blocks = pandoc.Blocks(blocks):walk({ Inlines = function(inlines)
    for _, inline in ipairs(inlines) do
      if is_guard(inline, "fails") then return mark(inlines, found) end
    end
  end })
  if #found > 0 then
    local after = 0
    for i, block in ipairs(blocks) do
      if block.t == "Header" and block.level == 1 then after = i break end
    end
    blocks:insert(after + 1, listed(found))
  end
  return blocks
end

function Pandoc(document)
  local pressed = false
  for i, block in ipairs(document.blocks) do
    if block.t == "Div" and block.classes:includes("page") then
      pressed = true
      block.content = page(block.content)
      document.blocks[i] = block
    end
  end
  if pressed then return document end
  local whole, one = pandoc.Blocks({}), pandoc.Blocks({}) -- Quarto's PDF: chapter after chapter
  for _, block in ipairs(document.blocks) do
    if block.t == "Header" and block.level == 1 then
      whole:extend(page(one))
      one = pandoc.Blocks({})
    end
    one:insert(block)
  end
  whole:extend(page(one))
  document.blocks = whole
  return document
end
