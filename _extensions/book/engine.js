// Quarto's engine for this book: notebooks come from the book's own runner.
//
// The runner (`python -m lib notebooks`) answers with an executed notebook that is current, and
// executes only what is not: html and typst share one execution, and an edit of prose costs none. Of a
// whole book it executes chapters side by side, ahead of the page that Quarto is at. What becomes of
// the notebook is Quarto's: `jupyter.toMarkdown` is what its Jupyter engine ends with, too.
// `quarto render --profile jupyter` does without all this.

const NAME = "book";
let quarto;
let runner; // one process for all pages: it ends with this one, when its standard input closes

// For every command Quarto walks through all that lies below the book, each folder once for each one above
// it (quarto-cli #6771): many seconds in an environment, which is none of its business.
const { readDirSync } = Deno;
if (!withJupyter()) {
  Deno.readDirSync = (folder) => readDirSync(folder).filter(({ name }) => name !== ".venv");
}

class Runner {
  constructor(python, folder) {
    const [command, ...rest] = python;
    const child = new Deno.Command(command, {
      args: [...rest, "-m", "lib", "notebooks"],
      cwd: folder,
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    child.unref();
    this.requests = child.stdin.getWriter();
    this.answers = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    this.text = "";
  }

  async ask(request) {
    await this.requests.write(new TextEncoder().encode(JSON.stringify(request) + "\n"));
    while (!this.text.includes("\n")) {
      const { value, done } = await this.answers.read();
      if (done) return { error: "the runner ended: see its messages above, or run `make setup`" };
      this.text += value;
    }
    const [line, ...rest] = this.text.split("\n");
    this.text = rest.join("\n");
    return JSON.parse(line);
  }
}

// The folder with _quarto.yml at or above this one: of a report, Quarto names the report's own.
function bookOf(folder) {
  for (let at = folder; at; at = at.replace(/[\\/]?[^\\/]*$/, "")) {
    if (isThere(`${at}/_quarto.yml`)) return at;
  }
  return folder;
}

function isThere(path) {
  try { return Boolean(Deno.statSync(path)); } catch { return false; }
}

function withJupyter() {
  return (Deno.env.get("QUARTO_PROFILE") ?? "").split(",").includes("jupyter");
}

async function execute(options) {
  const { target, format } = options;
  const folder = bookOf(options.projectDir ?? options.cwd);
  runner ??= new Runner(await quarto.jupyter.pythonExec(), folder);
  const answer = await runner.ask({
    file: quarto.path.absolute(target.source),
    parameters: options.params ?? {},
    words: Deno.args, // which page was named, whether all are rendered: the runner finds out
    folder: Deno.cwd(),
  });
  if (answer.error) {
    console.error(`\n${answer.error}`);
    if (options.previewServer) throw new Error(answer.error);
    Deno.exit(1);
  }
  const assets = quarto.jupyter.assets(target.input, format.pandoc.to);
  const result = await quarto.jupyter.toMarkdown(quarto.jupyter.fromJSON(answer.notebook), {
    executeOptions: options,
    language: "python",
    assets,
    execute: format.execute,
    keepHidden: format.render["keep-hidden"],
    toHtml: quarto.format.isHtmlCompatible(format),
    toLatex: quarto.format.isLatexOutput(format.pandoc),
    toMarkdown: quarto.format.isMarkdownOutput(format),
    toIpynb: quarto.format.isIpynbOutput(format.pandoc),
    toPresentation: quarto.format.isPresentationOutput(format.pandoc),
    figFormat: format.execute["fig-format"],
    figDpi: format.execute["fig-dpi"],
    figPos: format.render["fig-pos"],
  });
  const dependencies = result.dependencies; // what the book shows needs no require.js from a network
  if (dependencies) dependencies.jsWidgets = false;
  const { prefix = "", suffix = "" } = result.notebookOutputs ?? {};
  return {
    engine: NAME,
    markdown: prefix + result.cellOutputs.map((output) => output.markdown).join("") + suffix,
    supporting: [`${assets.base_dir}/${assets.supporting_dir}`],
    filters: [],
    pandoc: result.pandoc,
    includes: quarto.jupyter.resultIncludes(options.tempDir, dependencies),
    preserve: result.htmlPreserve,
    postProcess: Object.keys(result.htmlPreserve ?? {}).length > 0,
  };
}

export default {
  init: (api) => {
    quarto = api;
  },
  name: NAME,
  defaultExt: ".qmd",
  defaultYaml: () => [],
  defaultContent: () => ["```{python}", "1 + 1", "```"],
  validExtensions: () => [".qmd"],
  // a page without code may ask for a list of the whole book, which is the runner's to make
  claimsFile: (file, ext) =>
    ext === ".qmd" && !withJupyter() && Deno.readTextFileSync(file).includes("{.book-list "),
  claimsLanguage: (language) => language === "python" && !withJupyter(),
  canFreeze: false, // the runner's digests decide what is current, not the page's md5
  generatesFigures: true,
  quartoRequired: ">=1.9.0",
  launch: (project) => ({
    name: NAME,
    canFreeze: false,
    markdownForFile: (file) => Promise.resolve(quarto.mappedString.fromFile(file)),
    target: async (file, _quiet, given) => {
      const markdown = given ?? (await project.resolveFullMarkdownForFile(undefined, file));
      const metadata = quarto.markdownRegex.extractYaml(markdown.value);
      return { source: file, input: file, markdown, metadata };
    },
    partitionedMarkdown: (file) =>
      Promise.resolve(quarto.markdownRegex.partition(Deno.readTextFileSync(file))),
    execute,
    dependencies: () => Promise.resolve({ includes: {} }),
    postprocess: (options) => Promise.resolve(quarto.text.postProcessRestorePreservedHtml(options)),
    canKeepSource: () => true,
  }),
};
