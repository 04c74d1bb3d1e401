"use strict";
// The table of trials and the panel of one. Only rows in sight are in the document.
(async () => {
  const page = window.hpcsweep, box = document.getElementById("trial-table");
  const data = await page.trials;
  const table = box.querySelector("table"), head = table.tHead, body = table.tBodies[0], scroll = box.querySelector(".rows");
  const input = document.getElementById("trial-filter"), count = document.getElementById("trial-count");
  const clear = document.getElementById("trial-clear"), panel = document.getElementById("trial");
  const ROW = 30, BEFORE = 8; // pixels of a row; rows that are made before those in sight
  const PRINTED = 30; // rows on paper
  const columns = data.columns;
  columns.forEach((column) => { column.values ??= data.configs.map((config) => (config[column.name] === null ? "null" : config[column.name] ?? null)); });
  const numbers = columns[0].values, rowOf = new Map(numbers.map((trial, row) => [trial, row]));
  let order = [...numbers.keys()], shown = order, sorted = { column: -1, falling: false }, current = -1, matching = null;

  // ------------------------------------------------------------------ text

  const text = (value) => {
    if (value === null || value === undefined) return "–";
    if (typeof value === "number") return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
    return typeof value === "string" ? value : JSON.stringify(value);
  };
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const quoted = (word) => /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;

  // ------------------------------------------------------------------ filter and order

  const compared = {
    "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b,
    "=": (a, b) => a === b || String(a) === String(b),
  };
  // Words and ranges as functions of a row; a range is `name<0.1`, of a column that has this name.
  function conditions(wanted) {
    return [...wanted.matchAll(/("[^"]*"|[^\s"<>=]+)\s*(<=|>=|<|>|=)\s*("[^"]*"|[^\s"<>=]+)|"([^"]*)"|(\S+)/g)].map(([whole, name, sign, value, exact, word]) => {
      const bare = (part) => part.replaceAll('"', "");
      const column = name && columns.find((each) => each.name.toLowerCase() === bare(name).toLowerCase());
      if (column) {
        const limit = column.kind === "number" ? Number(bare(value)) : bare(value);
        return (row) => column.values[row] !== null && compared[sign](column.values[row], limit);
      }
      const part = bare(exact ?? word ?? whole).toLowerCase();
      return (row) => columns.some((each) => each.values[row] !== null && text(each.values[row]).toLowerCase().includes(part))
        || (data.messages[numbers[row]] ?? "").toLowerCase().includes(part);
    });
  }

  function arrange() {
    const { column, falling } = sorted;
    order = [...numbers.keys()];
    if (column >= 0) {
      const { values, kind } = columns[column], sign = falling ? -1 : 1;
      const key = (row) => kind === "number" ? values[row] : values[row] === null ? null : text(values[row]);
      order.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === null || y === null) return (x === null) - (y === null); // those without one are last
        return x < y ? -sign : x > y ? sign : a - b;
      });
    }
    choose();
  }

  function choose() {
    const brushed = page.focus.brushed;
    shown = order.filter((row) => (!matching || matching.has(numbers[row])) && (!brushed || brushed.has(numbers[row])));
    table.ariaRowCount = shown.length + 1;
    const all = `${numbers.length.toLocaleString("en")} trial${numbers.length === 1 ? "" : "s"}`;
    count.textContent = shown.length === numbers.length ? all : `${shown.length.toLocaleString("en")} of ${all}`;
    clear.hidden = !brushed;
    current = shown.findIndex((row) => numbers[row] === page.focus.trial);
    rows(true);
  }

  let waiting = null;
  function filter() {
    const wanted = conditions(input.value);
    matching = wanted.length ? new Set([...numbers.keys()].filter((row) => wanted.every((holds) => holds(row))).map((row) => numbers[row])) : null;
    choose();
    clearTimeout(waiting);
    waiting = setTimeout(() => page.show({ matching }), 250);
  }

  // ------------------------------------------------------------------ rows

  // Widths are of the longest text, so that columns stay where they are while rows come and go.
  const widths = columns.map(({ name, values, kind }) => {
    const longest = values.reduce((most, value) => Math.max(most, value === null ? 1 : text(value).length), 0);
    return Math.min(Math.max(longest, name.length + 2, 4), kind === "number" ? 14 : 28);
  });
  table.prepend(make("colgroup", {}, ...widths.map((width) => {
    const column = make("col");
    column.style.width = `calc(${width}ch + 1.4rem)`;
    return column;
  })));
  const heads = columns.map(({ name, kind }, index) => {
    const button = make("button", { type: "button", textContent: name, tabIndex: -1 });
    button.addEventListener("click", () => {
      // A second click turns the order round, a third one brings back the best first.
      sorted = sorted.column !== index ? { column: index, falling: false } : sorted.falling ? { column: -1 } : { column: index, falling: true };
      arrows();
      scroll.scrollTop = 0;
      arrange();
    });
    button.tabIndex = 0;
    const cell = make("th", { scope: "col", className: kind === "number" ? "number" : "", ariaSort: "none" }, button);
    return cell;
  });
  head.append(make("tr", {}, ...heads));

  const arrows = () => heads.forEach((each, at) => { each.ariaSort = at !== sorted.column ? "none" : sorted.falling ? "descending" : "ascending"; });

  let drawnFrom = -1, drawnTo = -1, printing = false;
  function rows(anew = false) {
    const from = printing ? 0 : Math.max(0, Math.floor(scroll.scrollTop / ROW) - BEFORE);
    const to = Math.min(shown.length, printing ? PRINTED : from + Math.ceil(scroll.clientHeight / ROW) + 2 * BEFORE);
    if (!anew && from === drawnFrom && to === drawnTo) return;
    [drawnFrom, drawnTo] = [from, to];
    const filler = (height) => {
      const row = make("tr", { ariaHidden: "true", className: "filler" }, make("td", { colSpan: columns.length }));
      row.firstChild.style.height = `${height}px`;
      return row;
    };
    const made = shown.slice(from, to).map((row, at) => {
      const cells = columns.map(({ values, kind }) => make("td", {
        className: kind === "number" ? "number" : "", textContent: text(values[row]), title: kind === "number" ? "" : text(values[row]),
      }));
      const element = make("tr", { id: `trial-row-${numbers[row]}`, ariaRowIndex: from + at + 2, ariaSelected: String(numbers[row] === page.focus.trial) }, ...cells);
      element.dataset.trial = numbers[row];
      if (from + at === current) element.classList.add("current");
      return element;
    });
    const left = shown.length - to, more = make("tr", {}, make("td", { colSpan: columns.length, textContent: `and ${left.toLocaleString("en")} more` }));
    body.replaceChildren(...(from ? [filler(from * ROW)] : []), ...made, ...(left ? [printing ? more : filler(left * ROW)] : []));
    const active = current >= from && current < to ? `trial-row-${numbers[shown[current]]}` : "";
    if (active) table.setAttribute("aria-activedescendant", active);
    else table.removeAttribute("aria-activedescendant");
  }

  function move(to) {
    if (!shown.length) return;
    current = Math.max(0, Math.min(shown.length - 1, to));
    const top = current * ROW, room = scroll.clientHeight - head.offsetHeight - table.caption.offsetHeight;
    if (top < scroll.scrollTop) scroll.scrollTop = top;
    else if (top + ROW > scroll.scrollTop + room) scroll.scrollTop = top + ROW - room;
    rows(true);
  }

  let scrolled = 0; // where it was scrolled to
  addEventListener("beforeprint", () => {
    scrolled = scroll.scrollTop;
    printing = true;
    rows(true);
  });
  addEventListener("afterprint", () => {
    printing = false;
    rows(true); // as high as before
    scroll.scrollTop = scrolled;
  });
  scroll.addEventListener("scroll", () => rows());
  new ResizeObserver(() => rows()).observe(scroll);
  input.addEventListener("input", filter);
  clear.addEventListener("click", () => page.show({ brushed: null }));
  body.addEventListener("click", ({ target }) => {
    const row = target.closest("tr[data-trial]");
    if (row) page.show({ trial: Number(row.dataset.trial) });
  });
  table.addEventListener("keydown", (event) => {
    if (event.target !== table) return;
    const moves = { ArrowDown: current + 1, ArrowUp: current - 1, PageDown: current + 10, PageUp: current - 10, Home: 0, End: shown.length - 1 };
    if (event.key in moves) move(moves[event.key]);
    else if (event.key === "Enter" && current >= 0) page.show({ trial: numbers[shown[current]] }, true);
    else return;
    event.preventDefault();
  });

  // ------------------------------------------------------------------ the panel of a trial

  function copied(command) {
    const button = make("button", { type: "button", textContent: "Copy", ariaLabel: `Copy: ${command}` });
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(command);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(button.previousElementSibling); // to be copied by hand
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    return make("div", { className: "command" }, make("pre", { tabIndex: 0 }, make("code", { textContent: command })), button);
  }

  const values = (pairs) => make("dl", {}, ...pairs.map(([name, value]) => make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: text(value) }))));
  const titled = (title, ...children) => [make("h3", { textContent: title }), ...children];

  function attemptsOf(trial) {
    const { attempts } = data, at = attempts.trial.flatMap((each, index) => (each === trial ? [index] : []));
    return make("ul", {}, ...at.map((index) => {
      const where = [attempts.node[index], attempts.job[index] && `job ${attempts.job[index]}`, attempts.took[index], attempts.started[index]];
      const said = attempts.message[index] && `: ${attempts.message[index]}`;
      return make("li", { textContent: `rung ${attempts.rung[index]}, ${attempts.ending[index]} (${where.filter(Boolean).join(", ")})${said}` });
    }));
  }

  function fill(trial) {
    const row = rowOf.get(trial), config = data.configs[row], dir = data.folder;
    const close = make("button", { type: "button", textContent: "Close", className: "close" });
    close.addEventListener("click", () => page.show({ trial: null }));
    const facts = columns.filter(({ name, values: all }) => !(name in config) && name !== "trial" && all[row] !== null);
    const settings = Object.entries(config).map(([name, value]) => quoted(`${name}=${typeof value === "string" ? value : JSON.stringify(value)}`));
    const commands = [`hpcsweep best ${dir} --rerun --trial ${trial}`, `hpcsweep enqueue ${dir} ${settings.join(" ")}`, `hpcsweep logs ${dir} ${trial}`, `hpcsweep explain ${dir} ${trial}`];
    const curves = curvesOf(trial);
    const log = data.logs[trial];
    panel.replaceChildren(
      make("header", {}, make("h2", { id: "trial-title", textContent: `Trial ${trial}` }), close),
      ...titled("Configuration", values(Object.entries(config).map(([name, value]) => [name, value ?? "null"]))),
      ...titled("Results", values(facts.map(({ name, values: all }) => [name, all[row]]))),
      ...curves.parts,
      ...titled("What happened", make("ul", {}, ...data.story[row].map((line) => make("li", { textContent: line })))),
      ...titled("Attempts", attemptsOf(trial)),
      ...(log ? titled("End of its log", make("pre", { tabIndex: 0 }, make("code", { textContent: log }))) : []),
      ...titled("Commands", ...commands.map(copied)),
    );
    curves.draw();
  }

  // The curve of a trial, of the objective that was chosen last: the parts of the panel, and what draws it.
  let objective = null;
  function curvesOf(trial) {
    const lines = new Map(data.curves.flatMap(({ metric, trial: of, step, value }) => {
      const points = of.flatMap((each, index) => (each === trial ? [index] : []));
      return points.length > 1 ? [[metric, { x: points.map((index) => step[index]), y: points.map((index) => value[index]) }]] : [];
    }));
    if (!lines.size) return { parts: [], draw() {} };
    const chosen = () => (lines.has(objective) ? objective : lines.keys().next().value);
    const curve = make("div", { className: "curve", role: "img" });
    const draw = () => {
      curve.ariaLabel = `${chosen()} of trial ${trial} over its steps`;
      const line = { type: "scatter", mode: "lines+markers", ...lines.get(chosen()), line: { color: { "@": "1" } }, hovertemplate: "step %{x}: %{y:.6~g}<extra></extra>" };
      page.plot(curve, [line], { xaxis: { title: { text: "step" } }, margin: { l: 40, r: 8, t: 8, b: 36 } });
    };
    if (lines.size === 1) return { parts: titled(`${chosen()} over steps`, curve), draw };
    const menu = make("select", {}, ...[...lines.keys()].map((metric) => make("option", { textContent: metric, selected: metric === chosen() })));
    menu.addEventListener("change", () => {
      objective = menu.value;
      draw();
    });
    return { parts: titled("Over steps", make("label", {}, "Objective ", menu), curve), draw };
  }

  let opener = null, open = null;
  function follow(focused) {
    const { trial } = page.focus;
    if (trial !== open) {
      open = trial;
      const known = rowOf.has(trial);
      if (known) fill(trial);
      if (panel.hidden && known) opener = document.activeElement;
      panel.hidden = !known;
      if (known) {
        panel.scrollTop = 0;
        if (focused) panel.querySelector(".close").focus();
      } else if (opener?.isConnected) opener.focus({ preventScroll: true });
      const place = known ? `#trial=${trial}` : location.hash.startsWith("#trial=") ? "#trials" : location.hash;
      history.replaceState(null, "", place || location.pathname);
    }
    choose();
  }
  addEventListener("hpcsweep-focus", ({ detail }) => follow(detail.focused));
  addEventListener("hpcsweep-theme", () => { if (open !== null && rowOf.has(open)) fill(open); });
  addEventListener("keydown", ({ key }) => { if (key === "Escape" && !panel.hidden) page.show({ trial: null }); });

  // Of a page that loads itself anew: how it was, and how it is.
  page.view = () => ({ filter: input.value, sorted, brushed: page.focus.brushed && [...page.focus.brushed], rows: scroll.scrollTop });
  const { before } = page;
  if (before) {
    ({ sorted } = before);
    input.value = before.filter;
    if (before.filter) filter();
    if (before.brushed) page.show({ brushed: new Set(before.brushed) });
    arrows();
  }
  arrange();
  if (before) scroll.scrollTop = before.rows;
  const asked = /^#trial=(\d+)$/.exec(location.hash);
  if (asked && rowOf.has(Number(asked[1]))) page.show({ trial: Number(asked[1]) });
  performance.mark("hpcsweep-table");
})();
