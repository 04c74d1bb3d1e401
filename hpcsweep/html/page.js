"use strict";
// Draws figures as they come near the viewport, in the colours of the theme, and shows in all what is chosen in one.
(() => {
  const root = document.documentElement;
  const figures = [...document.querySelectorAll(".plot")];
  const shown = (plot) => !plot.closest("[hidden]"); // others are of versions that are not chosen
  const SHEET = 680; // pixels that fit between the margins of A4 and Letter
  let width; // of figures; they fill theirs unless they are for a sheet
  const TIP = 10; // parameters that a tooltip names
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

  // What is chosen: one trial, those picked in a figure, those that the filter of the table matches.
  const focus = { trial: null, brushed: null, matching: null };
  let version = 0; // of what figures show of that
  const table = document.querySelector("#trial-table script");
  const trials = table && unpacked(table).then(JSON.parse);
  let known = null; // trial -> its configuration as a tooltip has it
  let repeats = 1;

  const escaped = (value) => String(value).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  function learn({ columns, configs, repeats: each }) {
    const shown = (value) => (typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(4)) : typeof value === "string" ? value : JSON.stringify(value));
    const tip = (config) => Object.entries(config).slice(0, TIP).map(([name, value]) => `${escaped(name)} ${escaped(shown(value))}`).join("<br>");
    const texts = new Map(); // by row, made when needed
    const rows = new Map(columns[0].values.map((trial, row) => [trial, row]));
    repeats = each;
    known = (trial) => {
      const row = rows.get(trial);
      if (!texts.has(row)) texts.set(row, row === undefined ? "" : tip(configs[row]));
      return texts.get(row);
    };
  }

  // Trials of a trace's points; null where they are of none.
  function trialsOf({ type, customdata, hovertemplate }) {
    if (!customdata || !(type === "parcoords" || hovertemplate?.startsWith("trial %{customdata"))) return null;
    return customdata.map((each) => (Array.isArray(each) ? each[0] : each));
  }

  // Marks what is chosen in the traces of a figure, and names the configuration in its tooltips.
  function emphasise(traces) {
    const { trial, brushed, matching } = focus, first = trial === null ? null : trial - (trial % repeats);
    const sets = [brushed, matching].filter(Boolean);
    const chosen = (each) => sets.every((set) => set.has(each));
    const extra = [];
    for (const trace of traces) {
      const ids = trace.visible === false ? null : trialsOf(trace);
      if (!ids) continue;
      const own = ids.map((each) => each === trial || each === first);
      if (trace.type === "parcoords") {
        if (!sets.length && trial === null) continue;
        const { color } = trace.line, low = Math.min(...color), high = Math.max(...color);
        const marked = (each, at) => (trial === null ? chosen(each) : own[at]);
        trace.line = { cmin: low, cmax: high, ...trace.line, color: color.map((each, at) => (marked(ids[at], at) ? (trial === null ? each : high) : low)) };
        continue;
      }
      if (known) {
        trace.text = ids.map(known);
        trace.hovertemplate = trace.hovertemplate.replace(/(<extra>|$)/, "<br>%{text}$1");
      }
      const lines = trace.meta === "curves", points = (wanted) => {
        const [x, y] = [trace.x, trace.y].map((values) => values.map((value, at) => (wanted(ids[at], at) ? value : null)));
        return { type: "scatter", mode: trace.mode, x, y, xaxis: trace.xaxis, yaxis: trace.yaxis, hoverinfo: "skip", showlegend: false };
      };
      if (sets.length && lines) {
        trace.opacity = 0.2;
        extra.push({ ...points(chosen), line: trace.line, marker: trace.marker });
      } else if (sets.length && (trace.mode === "markers" || trace.type === "bar")) {
        trace.selectedpoints = ids.flatMap((each, at) => (chosen(each) ? [at] : []));
        trace.unselected = { marker: { opacity: 0.08 } };
      }
      if (own.some(Boolean) && trace.type === "bar") {
        const kept = (values) => values.filter((_, at) => own[at]), { orientation, width } = trace;
        const marker = { color: colour("text", 0.25), line: { color: colour("text"), width: 2 } };
        extra.push({ type: "bar", orientation, width, x: kept(trace.x), y: kept(trace.y), base: kept(trace.base), marker, hoverinfo: "skip", showlegend: false });
      } else if (own.some(Boolean)) {
        const mark = { size: lines ? 6 : 16, symbol: lines ? "circle" : "circle-open", color: colour("text"), line: { width: lines ? 0 : 3 } };
        extra.push({ ...points((_, at) => own[at]), mode: lines ? trace.mode : "markers", marker: mark, line: { color: colour("text"), width: 3 }, cliponaxis: false });
      }
    }
    traces.push(...extra);
  }

  function show(change, focused = false) {
    Object.assign(focus, change);
    version += 1;
    dispatchEvent(new CustomEvent("hpcsweep-focus", { detail: { focused } }));
    [...near].filter(stale).forEach(draw);
  }

  // Which trials lines of parallel coordinates are of that go through all picked ranges; null where none is picked.
  function picked({ customdata, dimensions }) {
    const within = (value, ranges) => (Array.isArray(ranges[0]) ? ranges : [ranges]).some(([low, high]) => value >= low && value <= high);
    const limits = dimensions.filter(({ constraintrange }) => constraintrange?.length);
    if (!limits.length) return null;
    return new Set(customdata.filter((_, at) => limits.every(({ values, constraintrange }) => within(values[at], constraintrange))));
  }

  // Points are clicked and picked, so are ranges of parallel coordinates.
  const listening = new WeakSet();
  function listen(plot, traces) {
    if (!trials || listening.has(plot) || !traces.some(trialsOf)) return;
    listening.add(plot);
    const trialAt = ({ customdata, data }) => (trialsOf(data) ? (Array.isArray(customdata) ? customdata[0] : customdata) : undefined);
    plot.on("plotly_click", ({ points }) => {
      const trial = points.map(trialAt).find((each) => each !== undefined);
      if (trial !== undefined) show({ trial });
    });
    plot.on("plotly_selected", (event) => {
      if (!event) return; // a click beside everything
      const brushed = event.points.map(trialAt).filter((each) => each !== undefined);
      show({ brushed: brushed.length ? new Set(brushed) : null });
    });
    plot.on("plotly_restyle", ([changes]) => {
      if (Object.keys(changes).some((key) => key.includes("constraintrange"))) show({ brushed: picked(plot.data[0]) });
    });
    const below = plot.closest("figure").querySelector(".save");
    if (traces[0].type === "parcoords" || below.querySelector(".brush")) return;
    const button = Object.assign(document.createElement("button"), { type: "button", className: "brush", textContent: "Pick points", ariaPressed: "false" });
    button.title = "Drag over points to show their trials in every figure and in the table";
    button.addEventListener("click", () => {
      button.ariaPressed = String(button.ariaPressed !== "true");
      draw(plot);
    });
    below.prepend(button);
  }

  // plotly.js, and what each figure shows as text; read once, so that a printer does not have to wait.
  const texts = new Map();
  const read = async (plot) => texts.set(plot, await unpacked(plot.closest("figure").querySelector("script")));
  let ready = null;
  function prepare() {
    return ready ??= (async () => {
      const source = document.getElementById("plotly");
      const [code, data] = await Promise.all([unpacked(source), trials, ...figures.filter(shown).map(read)]);
      if (data) learn(data);
      const script = document.createElement("script");
      script.textContent = code; // the page's policy knows it
      document.head.append(script);
      if (!window.Plotly) throw new Error("plotly.js was not run");
    })();
  }

  // A copy in which every {"@": name, "opacity": share} is a colour, and every {"$": index} what several traces share;
  // arrays that end with a number are taken as they are.
  function coloured(value, shared) {
    if (Array.isArray(value)) return typeof value.at(-1) === "number" ? value : value.map((inner) => coloured(inner, shared));
    if (value === null || typeof value !== "object") return value;
    if ("@" in value) return colour(value["@"], value.opacity);
    if ("$" in value) return shared[value.$];
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, coloured(inner, shared)]));
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

  const drawings = new WeakMap(); // by figure: its last drawing, which may be under way
  function draw(plot) {
    const drawing = drawNow(plot);
    drawings.set(plot, drawing);
    return drawing;
  }

  async function drawNow(plot) {
    const figure = plot.closest("figure"), menus = [...figure.querySelectorAll("select")];
    plot.dataset.drawn = root.dataset.theme;
    plot.dataset.version = version;
    try {
      if (!window.Plotly) await prepare();
      if (!texts.has(plot)) await read(plot);
      const { shared, ...packed } = JSON.parse(texts.get(plot)), content = coloured(packed, shared?.map((each) => coloured(each)));
      menus.forEach(({ selectedIndex, selectedOptions }, at) => {
        if (!selectedOptions[0].defaultSelected) change(content, content.menus[at][selectedIndex]);
      });
      // As long as the same is chosen, plotly keeps what was zoomed, brushed and hidden.
      const uirevision = menus.map((menu) => menu.selectedIndex).join() || "one";
      const brush = figure.querySelector(".brush")?.ariaPressed === "true" ? { dragmode: "select" } : {};
      const layout = { ...content.layout, ...brush, width, uirevision, selections: [], template: template() };
      emphasise(content.traces);
      await Plotly.react(plot, content.traces, layout, { displayModeBar: false, responsive: true });
      listen(plot, content.traces);
      performance.mark("hpcsweep-drawn", { detail: figure.id });
    } catch (error) {
      plot.textContent = window.DecompressionStream ? "This figure could not be drawn."
        : "This figure needs a newer browser: one of 2023 or later.";
      console.error(figure.id, error);
    }
  }

  async function save(plot, format) {
    await drawn(plot);
    const filename = `${document.title} ${plot.closest("figure").id}`;
    await Plotly.downloadImage(plot, { format, filename, width: null, height: null, scale: format === "png" ? 2 : 1 });
  }

  async function plot(element, traces, layout) {
    await prepare();
    await Plotly.react(element, coloured(traces), { ...layout, template: template() }, { displayModeBar: false, responsive: true });
  }
  window.hpcsweep = { focus, trials, show, plot };

  const stale = (plot) => plot.dataset.drawn !== root.dataset.theme || Number(plot.dataset.version) !== version;
  // Resolves when the figure is as it should be, whoever draws it.
  const drawn = (plot) => (stale(plot) ? draw(plot) : drawings.get(plot));
  const near = new Set();
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) near.delete(target);
      else if (near.add(target) && stale(target)) draw(target);
    }
  }, { rootMargin: "800px" });
  for (const plot of figures) {
    const figure = plot.closest("figure");
    seen.observe(plot);
    figure.querySelectorAll("select").forEach((menu) => menu.addEventListener("change", () => {
      if (shown(plot)) draw(plot);
      else delete plot.dataset.drawn;
    }));
    figure.querySelectorAll(".save button").forEach((button) => button.addEventListener("click", () => save(plot, button.value)));
  }

  // Everything at once, for a printer or a picture; resolves when all is drawn.
  window.hpcsweepDrawAll = () => Promise.all(figures.filter(shown).map(drawn));

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
      listening.delete(plot);
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
