// Contents stay beside the page on a wide screen and fold on a narrow one.
const contents = document.querySelector(".contents"), wide = matchMedia("(min-width: 75rem)");
function place() { contents.open = wide.matches; }
wide.addEventListener("change", place);
place();
contents.addEventListener("click", event => {
  if (event.target.closest("a") && !wide.matches) contents.open = false;
});
// A link to something folded unfolds it.
function unfold() {
  const found = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let at = found; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  if (found) found.scrollIntoView();
}
addEventListener("hashchange", unfold);
unfold();
document.querySelector(".unfold").addEventListener("click", event => {
  const folds = [...document.querySelectorAll(".fold")], open = folds.some(fold => !fold.open);
  for (const fold of folds) fold.open = open;
  event.target.textContent = open ? "Fold all" : "Unfold all";
});
// A click on a value that has a provenance, or a tap, which cannot hover, writes it below its table.
for (const table of document.querySelectorAll("table")) {
  table.addEventListener("click", event => {
    const cell = event.target.closest("td[title]"), figure = table.closest("figure");
    if (!cell || event.target.closest("a")) return;
    const known = figure.querySelector(".origin"), again = cell.hasAttribute("aria-describedby");
    figure.querySelector("td[aria-describedby]")?.removeAttribute("aria-describedby");
    known?.remove();
    if (again) return;
    const origin = document.createElement("p");
    origin.className = "origin";
    origin.id = "origin-" + Date.now();
    origin.setAttribute("role", "status");
    origin.textContent = cell.textContent.trim() + ": " + cell.title;
    cell.setAttribute("aria-describedby", origin.id);
    table.parentNode.after(origin);
  });
}
// Without a mouse: Enter goes from a table into its values, arrows from one to the next, Enter shows
// where a value comes from, Escape leaves.
const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
function next(cell, [down, right]) {
  const rows = cell.closest("tbody").rows;
  let row = cell.parentNode.sectionRowIndex + down, column = cell.cellIndex + right;
  for (; rows[row]?.cells[column]; row += down, column += right)
    if (rows[row].cells[column].title) return rows[row].cells[column];
}
for (const box of document.querySelectorAll(".scroll:has(td[title])")) {
  box.addEventListener("keydown", event => {
    const at = event.target.closest("td[title]");
    if (!at && event.target !== box) return;
    if (at && event.key === "Enter") return event.target.closest("a") || at.click();
    const to = at ? steps[event.key] && next(at, steps[event.key])
      : event.key === "Enter" && box.querySelector("td[title]");
    if (at && event.key === "Escape") box.focus();
    if (!to) return;
    event.preventDefault();
    to.tabIndex = -1;
    to.focus();
  });
}
// The edge that hides something fades, where a table or picture is wider than the page.
function edge(box) {
  box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
}
for (const box of document.querySelectorAll(".scroll")) {
  box.addEventListener("scroll", () => edge(box), { passive: true });
  new ResizeObserver(() => edge(box)).observe(box);
}
// A click on a head sorts its table: numbers as numbers, then words, cells without a value last; a
// second click turns it.
const number = /^[^0-9a-z-]*(-?[0-9][0-9,]*\.?[0-9]*(?:e[+-]?[0-9]+)?)/i;
function key(cell) {
  const text = cell.textContent.trim().replace(/^–$/, ""), found = text.match(number);
  return { text, value: found ? parseFloat(found[1].replace(/,/g, "")) : NaN };
}
function compare(a, b, turn) {
  if (!a.text || !b.text) return (a.text ? 0 : 1) - (b.text ? 0 : 1);
  if (!isNaN(a.value) && !isNaN(b.value)) return turn * (a.value - b.value);
  if (!isNaN(a.value) || !isNaN(b.value)) return isNaN(a.value) ? 1 : -1;
  return turn * a.text.localeCompare(b.text);
}
for (const head of document.querySelectorAll("th")) {
  if (!head.textContent.trim()) continue;
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", turn > 0 ? "ascending" : "descending");
    const body = head.closest("table").tBodies[0], rows = [...body.rows], i = head.cellIndex;
    rows.sort((a, b) => compare(key(a.cells[i]), key(b.cells[i]), turn));
    body.append(...rows);
  });
}
// Claims by verdict.
for (const filter of document.querySelectorAll(".filter")) {
  const buttons = [...filter.querySelectorAll("button")];
  filter.addEventListener("click", event => {
    const pressed = event.target.closest("button");
    if (!pressed) return;
    for (const button of buttons) button.setAttribute("aria-pressed", button === pressed);
    const wanted = pressed.dataset.show;
    for (const line of filter.closest("figure").querySelectorAll(".line:not(.scale)")) {
      const marks = [...line.querySelectorAll(".mark")];
      for (const mark of marks) mark.hidden = wanted !== "" && mark.dataset.outcome !== wanted;
      line.hidden = marks.every(mark => mark.hidden);
    }
  });
}
// Charts: the library is packed, and drawn in the colours of the page, light or dark.
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}
function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = name => style.getPropertyValue(name).trim();
  const ink = of("--ink"), soft = of("--soft"), rule = of("--rule");
  return {
    background: null,
    font: "system-ui, sans-serif",
    view: { stroke: rule },
    axis: { labelColor: soft, titleColor: soft, gridColor: rule, domainColor: rule, tickColor: rule,
            titleFontWeight: "normal" },
    // Legends one below the other: side by side they are wider than their chart, and cut off.
    legend: { labelColor: ink, symbolStrokeWidth: 2, labelLimit: 260,
              layout: { bottom: { direction: "vertical", anchor: "start", margin: 2 } } },
    range: { category: ["--blue", "--red", "--green", "--gold", "--purple", "--sky"].map(of) },
    point: { filled: false },
  };
}
async function drawCharts() {
  const packed = document.getElementById("library");
  if (!packed) return;
  const code = document.createElement("script");
  code.textContent = await unpack(packed.textContent);
  document.body.append(code);
  // Where browsers give what is folded no width, it is drawn when it is unfolded.
  const draw = part => {
    for (const chart of part.querySelectorAll(".chart")) {
      const spec = JSON.parse(chart.querySelector("script").textContent);
      // The height is that of the drawing, however many lines its legend has.
      const full = { ...spec, width: "container", autosize: { type: "fit-x", contains: "padding" } };
      const canvas = chart.querySelector(".canvas");
      canvas.replaceChildren();
      if (!canvas.clientWidth) continue;
      const compiled = vegaLite.compile(full, { config: colours() }).spec;
      new vega.View(vega.parse(compiled), { renderer: "svg", container: canvas, hover: true })
        .tooltip(tooltip).runAsync();
    }
  };
  const all = () => draw(document);
  all();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; all(); } });
  for (const fold of document.querySelectorAll(".fold")) {
    fold.addEventListener("toggle", () => {
      if (fold.open && fold.querySelector(".canvas:empty")) draw(fold);
    });
  }
}
const hint = document.createElement("div");
hint.className = "hint";
hint.hidden = true;
document.body.append(hint);
function tooltip(handler, event, item, value) {
  hint.hidden = value == null || value === "";
  if (hint.hidden) return;
  hint.textContent = typeof value === "object"
    ? Object.entries(value).map(([name, text]) => name + ": " + text).join("\n") : value;
  hint.style.left = Math.min(event.clientX + 12, innerWidth - hint.offsetWidth - 8) + "px";
  hint.style.top = Math.min(event.clientY + 12, innerHeight - hint.offsetHeight - 8) + "px";
}
drawCharts();
