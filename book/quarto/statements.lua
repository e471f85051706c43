-- Sentences carry guards (lib.claims.holds). Where one fails, the sentence before it is marked, and a
-- callout below the page's title lists what does not hold in this run. Both editions use this filter:
-- Quarto page by page, the press on the whole book, a Div of class `page` a page.

local function ends_sentence(inline)
  return inline.t == "Str" and inline.text:match("[.!?][\"'”’)]*$") ~= nil
end

-- The place of the first inline of the sentence that ends before `at`.
local function beginning(inlines, at)
  local start = at
  while start > 1 and (start == at or not ends_sentence(inlines[start - 1])) do
    local before = inlines[start - 1]
    if before.t == "Span" and before.classes:includes("fails") then break end
    start = start - 1
  end
  while start < at and (inlines[start].t == "Space" or inlines[start].t == "SoftBreak") do
    start = start + 1
  end
  return start
end

local function mark(inlines, found)
  local at = 1
  while at <= #inlines do
    local inline = inlines[at]
    if inline.t == "Span" and inline.classes:includes("fails") then
      local start = beginning(inlines, at)
      local sentence = pandoc.List()
      for i = start, at - 1 do sentence:insert(inlines[i]) end
      found:insert(pandoc.Inlines(sentence):clone())
      for _ = start, at - 1 do inlines:remove(start) end
      inlines:insert(start, pandoc.Span(sentence, pandoc.Attr("", { "failing-sentence" })))
      at = start + 1
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
  return pandoc.Div({ intro, pandoc.BulletList(items) },
    pandoc.Attr("", { "callout-warning" }, { title = "What does not hold here" }))
end

local function page(blocks)
  local found = pandoc.List()
  blocks = pandoc.Blocks(blocks):walk({ Inlines = function(inlines)
    for _, inline in ipairs(inlines) do
      if inline.t == "Span" and inline.classes:includes("fails") then return mark(inlines, found) end
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
  if not pressed then document.blocks = page(document.blocks) end
  return document
end
