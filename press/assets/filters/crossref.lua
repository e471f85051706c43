-- Numbers for chapters, sections, figures, tables and equations, and what refers to them.
--
-- The document is the whole book: one Div of class `page` per .qmd file, with the attributes
-- source, url, part and appendix. Metadata `edition` is html or typst. Numbers are those that
-- Quarto gives: per chapter, "Figure 1.2"; appendices are A, B, ...; unnumbered chapters count on
-- their own. Left behind in the metadata: `pages` (title and number of each page) and `problems`
-- (one line each; the press stops on them).

local KINDS = {
  fig = "Figure", tbl = "Table", eq = "Equation", sec = "Section",
}

local edition
local index = {}     -- label -> {number =, word =, page = source}
local problems = {}
local headings = {}  -- source of a page -> identifier of its heading

-- `target` as written in `source`, seen from the project's root.
local function from_root(source, target)
  local file = pandoc.path.normalize(pandoc.path.join { pandoc.path.directory(source), target })
  local above
  repeat file, above = file:gsub("[^/]+/%.%./", "", 1) until above == 0
  return file
end

local function problem(source, text)
  table.insert(problems, pandoc.MetaString(source .. ": " .. text))
end

local function kind_of(label)
  local prefix = label:match("^(%a+)%-.")
  return prefix and KINDS[prefix] and prefix
end

-- Is this element meant for the edition being made? nil if it does not say.
local function visible(element)
  local function names(format)
    return format == edition or (format == "pdf" and edition == "typst")
  end
  local hidden = element.classes:includes("content-hidden")
  if not hidden and not element.classes:includes("content-visible") then return nil end
  local when, unless = element.attributes["when-format"], element.attributes["unless-format"]
  local holds = (not when or names(when)) and (not unless or not names(unless))
  if hidden then return not holds end
  return holds
end

local function conditional(element)
  local show = visible(element)
  if show == false then return {} end
  if show then return element.content end
end

-- ---------------------------------------------------------------- numbering one page

-- A counter of the numbers in one page; `chapter` is "3", "A" or nil for unnumbered ones.
local function numberer(source, chapter)
  local counts = {}
  return function(kind, label)
    counts[kind] = (counts[kind] or 0) + 1
    local number = tostring(counts[kind])
    if chapter then number = chapter .. "." .. number end
    if index[label] then
      problem(source, "label " .. label .. " is used twice; rename one")
    end
    index[label] = { number = number, word = KINDS[kind], page = source }
    return number
  end
end

local function caption_of(kind, number, inlines)
  local name = pandoc.Inlines { KINDS[kind] .. "\u{a0}" .. number }
  if #inlines > 0 then name:insert(pandoc.Str(":")) end
  local caption = pandoc.Inlines { pandoc.Span(name, pandoc.Attr("", { "caption-label" })) }
  if #inlines > 0 then
    caption:insert(pandoc.Space())
    caption:extend(inlines)
  end
  return { pandoc.Plain(caption) }
end

-- The content of a figure or table div without its last paragraph, and that paragraph.
local function split_caption(blocks)
  local last = blocks[#blocks]
  local is_picture = last and last.t == "Para" and #last.content == 1 and last.content[1].t == "Image"
  if #blocks > 1 and last.t == "Para" and not is_picture then
    blocks:remove(#blocks)
    return blocks, last.content
  end
  return blocks, pandoc.Inlines {}
end

-- An alt attribute becomes the image's description, which every writer knows.
local function alt_text(image)
  local alt = image.attributes.alt or image.attributes["fig-alt"]
  if alt then image.caption = { pandoc.Str(alt) } end
  image.attributes.alt, image.attributes["fig-alt"] = nil, nil
  return image
end

local function bare(blocks)  -- a lone image must not become a figure of its own
  return blocks:walk {
    Para = function(para)
      if #para.content == 1 and para.content[1].t == "Image" then return pandoc.Plain(para.content) end
    end,
    Figure = function(figure)
      if figure.identifier == "" then return figure.content end
    end,
  }
end

local function is_equation_label(inline)
  if inline and inline.t == "Str" then return inline.text:match("^{#(eq%-[^}%s]+)}(.*)$") end
end

-- `$$ ... $$ {#eq-x}` becomes a Span of class `equation` with its number as attribute.
local function equations(inlines, number)
  local result = pandoc.Inlines {}
  local i = 1
  while i <= #inlines do
    local inline, step = inlines[i], 1
    if inline.t == "Math" and inline.mathtype == "DisplayMath" then
      local after = inlines[i + 1]
      if after and (after.t == "Space" or after.t == "SoftBreak") then step = 2 end
      local label, rest = is_equation_label(inlines[i + step])
      if label then
        local attributes = { number = number("eq", label) }
        result:insert(pandoc.Span({ inline }, pandoc.Attr(label, { "equation" }, attributes)))
        if rest ~= "" then result:insert(pandoc.Str(rest)) end
        step = step + 1
      else
        result:insert(inline)
        step = 1
      end
    else
      result:insert(inline)
    end
    i = i + step
  end
  return result
end

-- `1.2` for a header, counted per level below the chapter's own heading.
local function section_counter(chapter)
  local levels = {}
  return function(level)
    levels[level] = (levels[level] or 0) + 1
    for deeper = level + 1, 6 do levels[deeper] = nil end
    local number = chapter
    for above = 2, level do number = number .. "." .. (levels[above] or 0) end
    return number
  end
end

local function first_header(page)
  for _, block in ipairs(page.content) do
    if block.t == "Header" and block.level == 1 then return block end
  end
end

local function number_page(page, chapter)
  local source = page.attributes.source
  local number = numberer(source, chapter)
  local section = chapter and section_counter(chapter)

  local function header(element)
    local shown
    if section and not element.classes:includes("unnumbered") then
      shown = element.level == 1 and chapter or section(element.level)
      element.attributes.number = shown
    end
    local label = element.identifier
    if kind_of(label) == "sec" then
      if index[label] then problem(source, "label " .. label .. " is used twice; rename one") end
      local word = "Section"
      if element.level == 1 then word = page.attributes.appendix and "Appendix" or "Chapter" end
      index[label] = { number = shown, word = word, page = source, title = element.content }
    end
    return element, false
  end

  local function figure(identifier, content, caption, attributes)
    local numbered = caption_of("fig", number("fig", identifier), caption)
    local attr = pandoc.Attr(identifier, {}, attributes or {})
    return pandoc.Figure(bare(content):walk { Image = alt_text }, { long = numbered }, attr), false
  end

  local function div(element)
    local kind = kind_of(element.identifier)
    if kind == "fig" then
      local content, caption = split_caption(element.content)
      if #content == 0 then problem(source, "@" .. element.identifier .. " shows nothing") end
      return figure(element.identifier, content, caption)
    elseif kind == "tbl" then
      local content, caption = split_caption(element.content)
      local numbered = caption_of("tbl", number("tbl", element.identifier), caption)
      for i, block in ipairs(content) do
        if block.t == "Table" then
          block.caption = { long = numbered }
          block.identifier = element.identifier
          content[i] = block
          return content, false
        end
      end
      local attr = pandoc.Attr(element.identifier, { "table-figure" })
      return pandoc.Figure(content, { long = numbered }, attr), false
    elseif element.classes:find_if(function(c) return c:match("^callout%-") end) then
      local first = element.content[1]
      if first and first.t == "Header" then  -- its heading is a title, not a section
        element.attributes.title = element.attributes.title or pandoc.utils.stringify(first.content)
        element.content:remove(1)
        return element
      end
    end
  end

  return page:walk {
    traverse = "topdown",
    Header = header,
    Div = div,
    Figure = function(element)
      if kind_of(element.identifier) == "fig" then
        local caption = pandoc.utils.blocks_to_inlines(element.caption.long)
        return figure(element.identifier, element.content, caption)
      end
    end,
    Table = function(element)
      if kind_of(element.identifier) == "tbl" then
        local caption = pandoc.utils.blocks_to_inlines(element.caption.long)
        element.caption = { long = caption_of("tbl", number("tbl", element.identifier), caption) }
        return element, false
      end
    end,
    Inlines = function(inlines) return equations(inlines, number) end,
    Image = alt_text,
  }
end

-- ---------------------------------------------------------------- references

local function link_to(label, words)
  return pandoc.Link(words, "#" .. label, "", pandoc.Attr("", { "crossref" }))
end

-- One `@fig-x`: "Figure 1.2"; `[-@fig-x]`: "1.2"; `[Panel @fig-x]`: "Panel 1.2".
local function reference(citation, source)
  local label = citation.id:gsub("^%u", string.lower)
  local entry = index[label]
  if not entry then
    problem(source, "@" .. citation.id .. " refers to nothing in the " .. edition
      .. " edition; mend the label, or gate the reference like its target")
    return pandoc.Inlines {}
  end
  if not entry.number then return pandoc.Inlines { link_to(label, entry.title) } end
  local words = pandoc.Inlines {}
  if #citation.prefix > 0 then
    words:extend(citation.prefix)
    words:insert(pandoc.Str("\u{a0}" .. entry.number))
  elseif citation.mode == "SuppressAuthor" then
    words:insert(pandoc.Str(entry.number))
  else
    words:insert(pandoc.Str(entry.word .. "\u{a0}" .. entry.number))
  end
  local result = pandoc.Inlines { link_to(label, words) }
  result:extend(citation.suffix)
  return result
end

local function note_labels(page, labels)
  local function look(element)
    if element.attr and element.identifier ~= "" then labels[element.identifier] = true end
  end
  page:walk { Block = look, Inline = look }
end

local function resolve(page, labels)
  local source = page.attributes.source
  return page:walk {
    Cite = function(cite)
      local references = cite.citations:filter(function(c)
        return kind_of((c.id:gsub("^%u", string.lower)))
      end)
      if #references == 0 then return nil end
      if #references < #cite.citations then
        problem(source, "a cross-reference and a citation share one bracket; set them apart")
      end
      local result = pandoc.Inlines {}
      for i, citation in ipairs(references) do
        if i > 1 then result:extend { pandoc.Str(","), pandoc.Space() } end
        result:extend(reference(citation, source))
      end
      return result
    end,
    Link = function(link)  -- a link to another page's source becomes one to its heading
      local anchor = link.target:match("^#(.+)$")
      if anchor and not labels[anchor] then
        problem(source, "links to #" .. anchor .. ", which is nowhere in the book")
      end
      local target, rest = link.target:match("^([^:#]+%.qmd)(#?.*)$")
      if not target then return nil end
      local label = headings[from_root(source, target)]
      if not label then problem(source, "links to " .. link.target .. ", which is no page here") end
      link.target = rest ~= "" and rest or "#" .. (label or "")
      return link
    end,
    Str = function(str)
      if str.text:match("^{{<") then
        problem(source, "Quarto shortcodes ({{< ... >}}) are not known to the press; use Markdown")
      elseif str.text:match("^{#%a+%-") then
        problem(source, "the label " .. str.text .. " stands where nothing takes it")
      end
    end,
  }
end

-- ---------------------------------------------------------------- the book

function Pandoc(doc)
  edition = pandoc.utils.stringify(doc.meta.edition)
  doc = doc:walk { traverse = "topdown", Div = conditional, Span = conditional }
  local chapters, appendices = 0, 0
  local pages = pandoc.List {}
  for i, page in ipairs(doc.blocks) do
    local header = first_header(page)
    local number
    if not header then
      problem(page.attributes.source, "has no chapter heading; start it with `# Title {#sec-name}`")
    elseif not header.classes:includes("unnumbered") then
      if page.attributes.appendix then
        appendices = appendices + 1
        number = string.char(64 + appendices)
      else
        chapters = chapters + 1
        number = tostring(chapters)
      end
    end
    doc.blocks[i] = number_page(page, number)
    headings[page.attributes.source] = header and header.identifier
    pages:insert {
      title = pandoc.MetaString(header and pandoc.utils.stringify(header.content) or ""),
      number = pandoc.MetaString(number or ""),
      label = pandoc.MetaString(header and header.identifier or ""),
    }
  end
  local labels = {}
  for _, page in ipairs(doc.blocks) do note_labels(page, labels) end
  for i, page in ipairs(doc.blocks) do doc.blocks[i] = resolve(page, labels) end
  doc.meta.pages = pages
  doc.meta.problems = pandoc.MetaList(problems)
  return doc
end
