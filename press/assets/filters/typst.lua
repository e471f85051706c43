-- The whole book, numbered and cited, made ready for Pandoc's Typst writer. The functions that the
-- raw pieces call (part, code-cell, callout, ...) stand in book.typ.

local TEXT_WIDTH = 5.9 -- inches between the margins of the page in book.typ

local function raw(code) return pandoc.RawBlock("typst", code) end
local function raw_inline(code) return pandoc.RawInline("typst", code) end
local function quoted(text) return '"' .. text:gsub('[\\"]', "\\%0") .. '"' end

local function wrapped(before, blocks, after)
  local result = pandoc.Blocks { raw(before) }
  result:extend(blocks)
  result:insert(raw(after))
  return result
end

-- Labels are global in Typst: those that are not the book's own get their page's name, and those
-- that nothing links to are dropped.
local function is_global(label)
  return label:match("^fig%-") or label:match("^tbl%-") or label:match("^eq%-")
    or label:match("^sec%-") or label:match("^ref%-")
end

local function each_label(page, note)
  local function look(element)
    if element.attr and element.identifier ~= "" then note(element.identifier) end
  end
  page:walk { Block = look, Inline = look }
end

local function renamed(page, label)
  if is_global(label) then return label end
  return page.attributes.name:gsub("[^%w]", "-") .. "--" .. label
end

-- Rewrites the labels and links of every page of the book.
local function relabel(pages)
  local home, wanted, target_of = {}, {}, {}
  for i, page in ipairs(pages) do
    target_of[i] = {}
    each_label(page, function(label)
      target_of[i][label] = renamed(page, label)
      home[label] = home[label] or target_of[i][label]
    end)
  end
  for i, page in ipairs(pages) do
    pages[i] = page:walk {
      Link = function(link)
        local label = link.target:match("^#(.+)$")
        local target = label and (target_of[i][label] or home[label])
        if label and not target then return link.content end
        if target then
          wanted[target] = true
          link.target = "#" .. target
          return link
        end
      end,
    }
  end
  for i, page in ipairs(pages) do
    local function rename(element)
      if not element.attr or element.identifier == "" then return nil end
      local label = renamed(page, element.identifier)
      element.identifier = wanted[label] and label or ""
      return element
    end
    pages[i] = page:walk { Block = rename, Inline = rename }
  end
end

local function header(element, in_part)
  local level = element.level + (in_part and 1 or 0)
  local number = element.attributes.number
  local numbering = number and "(..) => " .. quoted(number) or "none"
  local kind = element.level == 1 and ", supplement: [Chapter]" or ""
  if element.classes:includes("unlisted") then kind = kind .. ", outlined: false" end
  local inlines = pandoc.Inlines {
    raw_inline(("#heading(level: %d, numbering: %s%s)["):format(level, numbering, kind)),
  }
  inlines:extend(element.content)
  local label = element.identifier ~= "" and (" <" .. element.identifier .. ">") or ""
  inlines:insert(raw_inline("]" .. label))
  local blocks = pandoc.Blocks { pandoc.Para(inlines) }
  if element.level == 1 then blocks:insert(1, raw("#opening()")) end
  return blocks
end

local function layout(div)
  local columns = tonumber(div.attributes.columns) or 1
  local blocks = pandoc.Blocks { raw(("#panels(%d,"):format(columns)) }
  for _, panel in ipairs(div.content) do
    blocks:extend(wrapped("[", panel.content or { panel }, "],"))
  end
  blocks:insert(raw(")"))
  return blocks:walk {
    Image = function(image) image.attributes.width = "100%" return image end,
  }
end

-- Pandoc's own writer leaves out alternative texts.
local function picture(image, folder)
  local source = "/" .. pandoc.path.normalize(pandoc.path.join { folder, image.src })
  local width = image.attributes.width or "auto"
  local inches = tonumber(width:match("^([%d.]+)in$"))
  if inches and inches > TEXT_WIDTH then width = "100%" end
  local alt = pandoc.utils.stringify(image.caption)
  return raw_inline(("#box(image(%s, width: %s, alt: %s))"):format(
    quoted(source), width, alt ~= "" and quoted(alt) or "none"))
end

-- What is folded away on the pages keeps its parameters, and no other code.
local function without_setup(div)
  return div:walk { Div = function(inner)
    if inner.classes:includes("cell-code") and not inner.classes:includes("parameters") then
      return {}
    end
  end }
end

local function shapes(page)
  local folder = pandoc.path.directory(page.attributes.source)
  return {
    traverse = "topdown",
    Div = function(div)
      if div.classes:includes("cell-code") then
        if div.attributes.fold == "true" then return {} end -- on paper nothing can be unfolded
        local title = div.classes:includes("parameters") and quoted(div.attributes.summary) or "none"
        return wrapped(("#code-cell(title: %s)["):format(title), div.content, "]")
      elseif div.classes:includes("cell-output") then
        return wrapped("#cell-output[", div.content, "]")
      elseif div.classes:includes("layout") then
        return layout(div)
      end
      for _, class in ipairs(div.classes) do
        local kind = class:match("^callout%-(%a+)$")
        if kind then
          if div.attributes.collapse == "true" then div = without_setup(div) end
          local title = div.attributes.title or kind:sub(1, 1):upper() .. kind:sub(2)
          local before = ("#callout(%s, %s)["):format(quoted(kind), quoted(title))
          return wrapped(before, div.content, "]")
        end
      end
    end,
    Header = function(element) return header(element, page.attributes.part) end,
    Span = function(span)
      if span.classes:includes("caption-label") then return pandoc.Strong(span.content) end
      if span.classes:includes("equation") then
        local before = ("#[#set math.equation(numbering: (..) => %s)\n"):format(
          quoted("(" .. span.attributes.number .. ")"))
        local label = span.identifier ~= "" and (" <" .. span.identifier .. ">") or ""
        return { raw_inline(before), span.content[1], raw_inline(label .. "]") }, false
      end
    end,
    Link = function(link) -- as dark as the text: every page has many
      if not link.classes:includes("term") then return nil end
      link.content:insert(1, raw_inline("#text(fill: black)["))
      link.content:insert(raw_inline("]"))
      return link, false
    end,
    Image = function(image) return picture(image, folder), false end,
  }
end

function Pandoc(doc)
  relabel(doc.blocks)
  local blocks, part = pandoc.Blocks {}, nil
  for _, page in ipairs(doc.blocks) do
    local here = page.attributes.part
    if here and here ~= part then blocks:insert(raw("#part(" .. quoted(here) .. ")")) end
    part = here
    blocks:extend(page:walk(shapes(page)).content)
  end
  doc.blocks = blocks
  return doc
end
