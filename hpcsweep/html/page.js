"use strict";
// Draws figures as they come near the viewport, in the colours of the theme.
(() => {
  const root = document.documentElement;
  const figures = [...document.querySelectorAll(".plot")];
  const SHEET = 680; // pixels that fit between the margins of A4 and Letter
  let width; // of figures; they fill theirs unless they are for a sheet
  const touch = matchMedia("(pointer: coarse)").matches;

  function colour(name, opacity) {
    const hex = getComputedStyle(root).getPropertyValue(`--${name}`).trim();
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return `rgba(${red},${green},${blue},${opacity ?? 1})`;
  }

  // What a script element with data has, unpacked where it is packed.
  async function unpacked(element) {
    if (element.type !== "application/gzip") return element.textContent;
    const bytes = Uint8Array.from(atob(element.textContent), (letter) => letter.charCodeAt(0));
    const text = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(text).text();
  }

  // plotly.js, and what each figure shows as text; read once, so that a printer does not have to wait.
  const texts = new Map();
  let ready = null;
  function prepare() {
    return ready ??= (async () => {
      const source = document.getElementById("plotly");
      const read = figures.map(async (plot) => texts.set(plot, await unpacked(plot.closest("figure").querySelector("script"))));
      const [code] = await Promise.all([unpacked(source), ...read]);
      const script = document.createElement("script");
      script.textContent = code; // the page's policy knows it
      document.head.append(script);
      if (!window.Plotly) throw new Error("plotly.js was not run");
    })();
  }

  // A copy in which every {"@": name, "opacity": share} is a colour; arrays that end with a number are taken as they are.
  function coloured(value) {
    if (Array.isArray(value)) return typeof value.at(-1) === "number" ? value : value.map(coloured);
    if (value === null || typeof value !== "object") return value;
    if ("@" in value) return colour(value["@"], value.opacity);
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, coloured(inner)]));
  }

  function template() {
    const text = colour("text"), quiet = colour("quiet"), line = colour("border"), page = colour("page");
    const axis = {
      automargin: true, gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line, ticklabelstandoff: 4,
      tickfont: { color: quiet }, title: { standoff: 10, font: { color: text } },
    };
    const bar = { outlinewidth: 0, thickness: 12, tickfont: { color: quiet } };
    return {
      layout: {
        font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: text },
        paper_bgcolor: page, plot_bgcolor: page, autotypenumbers: "strict", dragmode: touch ? false : "zoom",
        colorway: [1, 2, 3, 4, 5, 6, 7, 8].map((name) => colour(name)),
        colorscale: { diverging: "Cividis", sequential: "Cividis", sequentialminus: "Cividis" },
        coloraxis: { colorbar: bar },
        margin: { l: 52, r: 16, t: 24, b: 44 },
        xaxis: axis, yaxis: axis,
        legend: { orientation: "h", x: 0, y: 1.02, xanchor: "left", yanchor: "bottom", font: { color: text } },
        hoverlabel: { align: "left", bgcolor: colour("surface"), bordercolor: line, font: { color: text } },
      },
      data: {
        bar: [{ marker: { line: { width: 0 } } }],
        contour: [{ colorbar: bar }],
        heatmap: [{ colorbar: bar }],
        parcoords: [{ labelfont: { color: text }, tickfont: { color: text }, rangefont: { color: text } }],
        scatter: [{ marker: { colorbar: bar } }],
      },
    };
  }

  function put(target, changes) {
    for (const [path, value] of Object.entries(changes)) {
      const keys = path.split("."), last = keys.pop();
      keys.reduce((inner, key) => (inner[key] ??= {}), target)[last] = value;
    }
  }

  // What is chosen in a menu, as plotly's function of that name would do it: of a list, each trace has its own.
  function change({ traces, layout }, { method, args }) {
    if (method !== "relayout") {
      traces.forEach((trace, at) => {
        const own = Object.entries(args[0]).map(([path, value]) => [path, Array.isArray(value) ? value[at % value.length] : value]);
        put(trace, Object.fromEntries(own));
      });
    }
    if (method !== "restyle") put(layout, args.at(-1));
  }

  async function draw(plot) {
    const figure = plot.closest("figure"), menus = [...figure.querySelectorAll("select")];
    plot.dataset.drawn = root.dataset.theme;
    try {
      if (!window.Plotly) await prepare();
      const content = coloured(JSON.parse(texts.get(plot)));
      menus.forEach(({ selectedIndex, selectedOptions }, at) => {
        if (!selectedOptions[0].defaultSelected) change(content, content.menus[at][selectedIndex]);
      });
      // As long as the same is chosen, plotly keeps what was zoomed, brushed and hidden.
      const uirevision = menus.map((menu) => menu.selectedIndex).join() || "one";
      const layout = { ...content.layout, width, uirevision, template: template() };
      await Plotly.react(plot, content.traces, layout, { displayModeBar: false, responsive: true });
      performance.mark("hpcsweep-drawn", { detail: figure.id });
    } catch (error) {
      plot.textContent = window.DecompressionStream ? "This figure could not be drawn."
        : "This figure needs a newer browser: one of 2023 or later.";
      console.error(figure.id, error);
    }
  }

  async function save(plot, format) {
    if (stale(plot)) await draw(plot);
    const filename = `${document.title} ${plot.closest("figure").id}`;
    await Plotly.downloadImage(plot, { format, filename, width: null, height: null, scale: format === "png" ? 2 : 1 });
  }

  const stale = (plot) => plot.dataset.drawn !== root.dataset.theme;
  const near = new Set();
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) near.delete(target);
      else if (near.add(target) && stale(target)) draw(target);
    }
  }, { rootMargin: "300px" });
  for (const plot of figures) {
    const figure = plot.closest("figure");
    seen.observe(plot);
    figure.querySelectorAll("select").forEach((menu) => menu.addEventListener("change", () => draw(plot)));
    figure.querySelectorAll(".save button").forEach((button) => button.addEventListener("click", () => save(plot, button.value)));
  }

  // Everything at once, for a printer or a picture; resolves when all is drawn.
  window.hpcsweepDrawAll = () => Promise.all(figures.filter(stale).map(draw));

  const dark = document.getElementById("dark");
  const themed = () => {
    dark.setAttribute("aria-pressed", String(root.dataset.theme === "dark"));
    [...near].filter(stale).forEach(draw);
  };
  dark.addEventListener("click", () => window.hpcsweepChoose(root.dataset.theme === "dark" ? "light" : "dark"));
  addEventListener("hpcsweep-theme", themed);
  themed();

  // A sheet is narrower than a window, and white; figures are laid out for it before the printer looks.
  let before = null;
  const redraw = (theme, wide) => {
    root.dataset.theme = theme;
    width = wide;
    for (const plot of figures) {
      window.Plotly?.purge(plot); // else it would keep its width
      delete plot.dataset.drawn;
    }
  };
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    redraw("light", SHEET);
    document.querySelectorAll("details").forEach((words) => { words.open = true; });
    window.hpcsweepDrawAll();
  });
  addEventListener("afterprint", () => {
    redraw(before, undefined);
    themed();
  });

  // The figures in sight are drawn within the first frame: after it the page answers.
  const frames = () => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => performance.mark("hpcsweep-ready"))));
  if (figures.length) prepare().then(frames, frames);
  else frames();
})();
