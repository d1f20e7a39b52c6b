// What ties the tables (DataTables) and the figures (Plotly) to the page; all text comes rendered.
(async () => {
  "use strict";
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  }
  if (!("DecompressionStream" in window)) {
    one("#old").hidden = false;
    return;
  }
  const data = await unpacked(one("#data").textContent);

  // colours
  const button = one("#theme");
  const prefers = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null; // no memory: a file on a disk shares its storage with every other
  function theme() {
    const dark = chosen ?? prefers.matches;
    document.documentElement.classList.toggle("dark", dark);
    button.setAttribute("aria-pressed", String(dark));
    all("[data-drawn]").forEach((figure) => draw(figure, figure.spec));
  }
  button.addEventListener("click", () => { chosen = !(chosen ?? prefers.matches); theme(); });
  prefers.addEventListener("change", theme);

  // figures
  function draw(figure, spec) {
    const style = getComputedStyle(document.body);
    const ink = style.getPropertyValue("--ink"), line = style.getPropertyValue("--line");
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: ink, automargin: true };
    const layout = {
      ...spec.layout,
      xaxis: { ...axis, ...spec.layout.xaxis }, yaxis: { ...axis, ...spec.layout.yaxis },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, family: style.fontFamily, size: 13 },
      shapes: (spec.layout.shapes ?? []).map((shape) => ({ ...shape, line: { color: ink, ...shape.line } })),
      margin: { t: 20, r: 16, b: 50, l: 60 }, legend: { ...legendOf(spec, figure), ...spec.layout.legend },
    };
    if (!figure.spec) {
      figure.innerHTML = '<div class="plot" role="group"></div><figcaption></figcaption><details><summary>The numbers</summary><div class="wide" tabindex="0" role="region" aria-label="The numbers of the figure"></div></details>';
    }
    figure.spec = spec;
    figure.dataset.drawn = "";
    one("figcaption", figure).textContent = spec.caption;
    one(".plot", figure).setAttribute("aria-label", spec.caption);
    one(".wide", figure).replaceChildren(numbers(spec));
    const traces = JSON.parse(JSON.stringify(spec.data).replaceAll('"#000000"', JSON.stringify(ink)));
    Plotly.react(one(".plot", figure), traces, layout, { responsive: true, displayModeBar: false });
  }
  function legendOf(spec, figure) { // of many lines it stands beside the plot, where it does not take its height
    const beside = spec.data.length > 6 && figure.clientWidth > 700;
    return beside ? { orientation: "v", x: 1.02, y: 1, font: { size: 11 } } : { orientation: "h", y: -0.25 };
  }
  function numbers(spec) {
    const table = document.createElement("table");
    const line = (tag, values) => {
      const row = table.insertRow();
      values.forEach((value) => {
        const cell = row.appendChild(document.createElement(tag));
        cell.textContent = typeof value === "number" ? String(+value.toPrecision(5)) : value ?? "";
        if (tag === "th") cell.scope = "col";
      });
    };
    const text = (axis) => spec.layout[axis]?.title?.text ?? axis[0];
    const intervals = spec.data.some((trace) => trace.error_y);
    line("th", ["series", text("xaxis"), text("yaxis"), ...(spec.data[0]?.z ? ["value"] : intervals ? ["low", "high"] : [])]);
    for (const trace of spec.data.filter((t) => t.showlegend !== false || t.z)) {
      if (trace.z) trace.y.forEach((y, i) => trace.x.forEach((x, j) => line("td", ["", x, y, trace.z[i][j]])));
      else {
        const { error_y: e } = trace;
        trace.x.forEach((x, i) => {
          const ends = e ? [trace.y[i] - e.arrayminus[i], trace.y[i] + e.array[i]] : intervals ? ["", ""] : [];
          line("td", [trace.name, x, trace.y[i], ...ends]);
        });
      }
    }
    return table;
  }

  // the table
  const plain = (text) => { const span = document.createElement("span"); span.textContent = text; return span.innerHTML; };
  const dash = '<span aria-label="none">–</span>';
  const render = {
    text: (value, type) => (type === "display" ? plain(value) : value),
    link: ([name, to], type) => (type === "display" ? `<a href="#/${to}">${plain(name)}</a>` : name),
    number: (value, type) => (type === "display" ? value ?? dash : value ?? -1),
    estimate: (value, type) => {
      if (type !== "display") return value ? value[0] : -1;
      if (!value) return dash;
      const [v, low, high] = value.map((x) => x.toFixed(3));
      return `${v} <small>[${low}, ${high}]</small>`;
    },
    checks: ([failed, count, unranked], type) => {
      if (type !== "display") return failed || unranked / 2;
      if (failed) return `<span class="failed">${failed} of ${count} failed</span>`;
      return unranked ? '<span class="failed">not ranked</span>' : `${count} passed`;
    },
  };
  const heads = all("#cells thead th");
  const titles = heads.map((head) => head.textContent);
  const table = new DataTable("#cells", {
    data: data.rows,
    columns: data.kinds.map((kind, i) => ({
      render: render[kind],
      visible: !heads[i].hasAttribute("data-hidden"),
      className: kind === "text" || kind === "link" ? "dt-left" : "dt-right",
      type: kind === "text" || kind === "link" ? "string" : "num",
      orderSequence: kind === "text" || kind === "link" ? ["asc", "desc"] : ["desc", "asc"],
    })),
    order: [],
    deferRender: true,
    autoWidth: false,
    responsive: true,
    pageLength: 25,
    layout: { topStart: "search", topEnd: null },
    language: { search: "Search ", emptyTable: "No cells.", zeroRecords: "No line fits these filters." },
  });
  const selects = all("select[data-column]");
  const choose = () => {
    for (const { value, dataset } of selects) {
      const column = table.column(titles.indexOf(dataset.column));
      if (dataset.column === "category") {
        table.column(titles.indexOf("level")).search(value === "" ? "means" : "categories");
        column.search(value === "*" ? "" : value, { exact: value !== "" && value !== "*" });
      } else column.search(value, { exact: value !== "" });
    }
    table.draw();
    one("#said").textContent = `${table.rows({ search: "applied" }).count()} lines`;
  };
  selects.forEach((select) => select.addEventListener("change", choose));
  one(".filters").addEventListener("reset", () => setTimeout(choose));
  choose();

  // pages
  const view = one("#view");
  let first = true;
  function show() {
    if (location.hash === "#main") { one("#main").focus(); return; } // the skip link
    const [page, what] = location.hash.replace(/^#\/?/, "").split("/");
    const rendered = { cell: data.cells, detector: data.detectors }[page]?.[what];
    const wanted = rendered ? "view" : page;
    const sections = all("[data-page]");
    const section = sections.find((s) => s.dataset.page === wanted) ?? sections[0];
    sections.forEach((s) => { s.hidden = s !== section; });
    if (rendered) {
      view.innerHTML = rendered;
      all("[data-figure]", view).forEach((f) => { const spec = data.figures[page][what][f.dataset.figure]; if (spec) draw(f, spec); });
    }
    all("nav a").forEach((a) => {
      if (a.getAttribute("href") === `#/${section.dataset.page}`) a.setAttribute("aria-current", "page");
      else a.removeAttribute("aria-current");
    });
    if (section.dataset.page === "plots") plot();
    if (section.dataset.page === "") {
      all("[data-plot]", section).forEach((f) => draw(f, data.plots[f.dataset.plot]));
      table.columns.adjust().responsive.recalc();
    }
    const heading = one("h1", section);
    document.title = `${heading.textContent} – adversarial anomaly detection`;
    const target = page === "help" && what ? document.getElementById(what) : null;
    if (target) target.scrollIntoView();
    else if (!first) { heading.tabIndex = -1; heading.focus({ preventScroll: true }); scrollTo(0, 0); }
    first = false;
  }
  const picker = one("#plot");
  const plot = () => { if (picker) draw(one("#figure"), data.plots[picker.value]); };
  picker?.addEventListener("change", plot);
  addEventListener("hashchange", show);
  theme();
  show();
})();
