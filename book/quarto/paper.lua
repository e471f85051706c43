-- What is particular to paper in Quarto's PDF. It leaves out the code that the pages fold away, for
-- here nothing can be unfolded: what a cell shows stays, and so does code that the chapter opens
-- (`code-fold: show`) and its parameters. And it has a letter for every character.

if not quarto.doc.is_format("typst") then return {} end

local OPEN = { ["show"] = true, ["false"] = true }

local function without_code(cell)
  local is_setup = cell.identifier:match("%-setup$")
  return cell:walk({ CodeBlock = function(code)
    if not code.classes:includes("cell-code") then return nil end
    if is_setup or not OPEN[code.attributes["code-fold"]] then return {} end
  end })
end

-- A character that no font of the book has is printed as its code point: all beyond the second plane,
-- and what a page writes of the others.
local NONE = { [0x6140] = true }

local function with_letters(text)
  local result = {}
  for _, code in utf8.codes(text) do
    local has = code < 0x20000 and not NONE[code]
    table.insert(result, has and utf8.char(code) or ("U+%04X"):format(code))
  end
  return table.concat(result)
end

return { {
  Div = function(div)
    if div.classes:includes("cell") then return without_code(div) end
  end,
  Link = function(link) -- as dark as the text: every page has many
    if not link.classes:includes("term") then return nil end
    link.content:insert(1, pandoc.RawInline("typst", "#text(fill: black)["))
    link.content:insert(pandoc.RawInline("typst", "]"))
    return link
  end,
  Str = function(str)
    if str.text:find("[\x80-\xff]") then return pandoc.Str(with_letters(str.text)) end
  end,
  Code = function(code)
    code.text = with_letters(code.text)
    return code
  end,
} }
