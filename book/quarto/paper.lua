-- Quarto's PDF leaves out the code that the pages fold away, for on paper nothing can be unfolded. What
-- a cell shows stays, and so does code that the chapter opens (`code-fold: show`) and its parameters.

if not quarto.doc.is_format("typst") then return {} end

local OPEN = { ["show"] = true, ["false"] = true }

local function without_code(cell)
  local is_setup = cell.identifier:match("%-setup$")
  return cell:walk({ CodeBlock = function(code)
    if not code.classes:includes("cell-code") then return nil end
    if is_setup or not OPEN[code.attributes["code-fold"]] then return {} end
  end })
end

return { { Div = function(div)
  if div.classes:includes("cell") then return without_code(div) end
end } }
