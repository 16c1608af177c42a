// The board: frontier plot, two dials, what is known near them. Everything here is drawn in the browser, so that a
// slider moves its point at once; texts enter the page as text only.
const data = props.data;
const values = data.values, n = values.length;
const NS = "http://www.w3.org/2000/svg";
const put = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
};
const h = (tag, attributes, ...children) => put(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => put(document.createElementNS(NS, tag), attributes, children);
const number = (x, digits = 2) => (x === null || x === undefined ? "–" : x.toFixed(digits).replace(/^-(0\.?0*)$/, "$1").replace("-", "−"));
const norm = (a, b) => Math.sqrt(a.reduce((sum, x, i) => sum + (x - b[i]) ** 2, 0));
const byName = Object.fromEntries(data.methods.map((method) => [method.name, method]));
const policies = data.methods.filter((method) => !method.dial).flatMap((method) => method.candidates.map((one) => ({ method, one })));
policies.push({ method: { name: "base", title: "Base model", colour: "#7F858F" }, one: data.base });
const byId = Object.fromEntries(policies.map((policy) => [policy.one.id, policy]));
const dials = data.methods.filter((method) => method.dial);

// --- where a setting stands -----------------------------------------------------------------------------------------
const between = (dial, weights) => {
  const distances = dial.centres.map((centre) => norm(centre, weights));
  return values.map((_, j) => dial.affine[0][j] + weights.reduce((sum, w, i) => sum + w * dial.affine[i + 1][j], 0)
    + distances.reduce((sum, d, k) => sum + d * dial.bent[k][j], 0));
};
const stand = (setting) => {
  if (setting.candidate) {
    const { method, one } = byId[setting.candidate];
    return { method, score: one.plot, nearest: one, distance: 0, measured: true, outside: false };
  }
  const method = byName[setting.method];
  const known = method.candidates.map((one) => ({ one, distance: norm(one.weights, setting.weights) }));
  const near = known.reduce((best, item) => (item.distance < best.distance - 1e-12 ? item : best));
  return { method, score: between(method.dial, setting.weights), nearest: near.one, distance: near.distance,
    measured: near.distance < 1e-6, outside: near.distance > method.dial.reach };
};
const fresh = (method) => ({ method: method.name, weights: [...method.dial.start], locked: method.dial.simplex, candidate: null });
const begin = ([kind, name]) => (kind === "dial" ? fresh(byName[name]) : { candidate: name });
const state = { A: begin(data.start[0]), B: begin(data.start[1]) };
let active = "A", axes = [0, Math.min(1, n - 1)];
const hidden = new Set();
const sent = (setting) => setting.candidate ? { candidate: setting.candidate }
  : { method: setting.method, weights: Object.fromEntries(values.map((value, i) => [value, setting.weights[i]])) };
window.valuesoup = { state: () => JSON.stringify({ A: sent(state.A), B: sent(state.B) }) };

// --- the plot -------------------------------------------------------------------------------------------------------
const root = element.querySelector(".vs-board");
const svg = s("svg", { class: "vs-svg", role: "img", "aria-label": "Frontier of all methods, with the settings A and B" });
const layerStill = s("g"), layerMoving = s("g");
svg.append(layerStill, layerMoving);
const box = { width: 600, height: 440, left: 58, right: 16, top: 34, bottom: 46 };
let scale = null;
const ticks = (low, high, most) => {
  const raw = (high - low) / most, unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((k) => k * unit >= raw) * unit;
  const found = [];
  for (let x = Math.ceil(low / step) * step; x <= high + 1e-9; x += step) found.push(Math.abs(x) < step / 1e6 ? 0 : x);
  return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
};
const shown = () => data.methods.filter((method) => !hidden.has(method.name));
const range = (j) => {
  const all = [...data.methods.flatMap((method) => method.candidates), data.base].map((one) => one.plot[j]);
  const low = Math.min(...all), high = Math.max(...all), margin = 0.08 * (high - low) || 1;
  return [low - margin, high + margin];
};
const rowOf = (method) => { const at = data.methods.findIndex((one) => one.name === method.name); return at < 0 ? data.methods.length : at; };
const setScale = () => {
  box.width = Math.max(300, svg.clientWidth || 600);
  box.height = n === 1 ? box.top + box.bottom + 34 * (data.methods.length + 1) : Math.min(470, Math.max(320, 0.78 * box.width));
  box.left = n === 1 ? Math.min(120, box.width / 3) : 52;
  const [x0, x1] = range(axes[0]), [y0, y1] = n === 1 ? [0, 1] : range(axes[1]);
  scale = {
    x: (x) => box.left + ((x - x0) / (x1 - x0)) * (box.width - box.left - box.right),
    y: (y) => box.height - box.bottom - ((y - y0) / (y1 - y0)) * (box.height - box.top - box.bottom),
    row: (method) => box.top + 17 + 34 * rowOf(method),
    xs: [x0, x1], ys: [y0, y1],
  };
};
const place = (score, method) => [scale.x(score[axes[0]]), n === 1 ? scale.row(method) : scale.y(score[axes[1]])];
const told = (method, one) => [`${method.title} · ${one.label}`, ...values.map((value, j) => {
  const of = one.validation[j];
  return `${value} ${number(one.plot[j])} [${number(of[1])}, ${number(of[2])}]`;
}), one.broken ? "its text breaks down: fluency below the bound" : null].filter(Boolean).join("\n");
const mark = (method, one) => {
  const [x, y] = place(one.plot, method), base = !method.path;
  const path = method.path || "M0,-1L.85,0L0,1L-.85,0Z";
  const size = base ? 7 : one.frontier ? 5.6 : 3.6;
  const ring = !method.dial && !base;
  return s("path", { d: path, class: "vs-mark", transform: `translate(${x},${y}) scale(${ring ? 7 : size})`,
    fill: ring ? "transparent" : method.colour, stroke: method.colour, "stroke-width": ring ? 0.3 : 0.12,
    opacity: base || one.frontier || ring ? 1 : 0.45, onclick: () => choose(method, one) }, s("title", {}, told(method, one)));
};
const drawStill = () => {
  setScale();
  svg.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
  svg.style.height = `${box.height}px`;
  layerStill.replaceChildren();
  const across = ticks(...scale.xs, box.width < 420 ? 4 : 7);
  for (const x of across.found) layerStill.append(
    s("line", { class: "vs-grid", x1: scale.x(x), x2: scale.x(x), y1: box.top - 6, y2: box.height - box.bottom }),
    s("text", { class: "vs-tick", x: scale.x(x), y: box.height - box.bottom + 17, "text-anchor": "middle" }, number(x, across.digits)));
  layerStill.append(s("text", { class: "vs-axis", x: box.width - box.right, y: box.height - 6, "text-anchor": "end" }, `${values[axes[0]]} reward →`));
  if (n === 1) {
    for (const method of [...data.methods, { name: "base", title: "Base model" }])
      layerStill.append(s("text", { class: "vs-tick", x: box.left - 10, y: scale.row(method) + 4, "text-anchor": "end" }, method.title));
  } else {
    const up = ticks(...scale.ys, 6);
    for (const y of up.found) layerStill.append(
      s("line", { class: "vs-grid", x1: box.left, x2: box.width - box.right, y1: scale.y(y), y2: scale.y(y) }),
      s("text", { class: "vs-tick", x: box.left - 8, y: scale.y(y) + 4, "text-anchor": "end" }, number(y, up.digits)));
    layerStill.append(s("text", { class: "vs-axis", x: 4, y: 14 }, `↑ ${values[axes[1]]} reward`));
    for (const method of shown().filter((one) => one.dial && one.dial.simplex && n === 2)) {
      const line = [...method.candidates].sort((a, b) => a.weights[0] - b.weights[0]).map((one) => place(one.plot, method).join(","));
      layerStill.append(s("polyline", { points: line.join(" "), class: "vs-dial", "data-method": method.name, stroke: method.colour }));
    }
  }
  for (const method of shown()) layerStill.append(...method.candidates.map((one) => mark(method, one)));
  layerStill.append(mark({ name: "base", title: "Base model", colour: "#7F858F" }, data.base));
  drawMoving();
};
const PIN = "M0,0C-2.5,-6 -10,-11 -10,-20A10,10 0 1,1 10,-20C10,-11 2.5,-6 0,0Z";
const inside = (x, low, high) => Math.min(high, Math.max(low, x));
const drawMoving = () => {
  layerMoving.replaceChildren();
  for (const line of layerStill.querySelectorAll(".vs-dial"))
    line.classList.toggle("on", Object.values(state).some((one) => one.method === line.dataset.method));
  for (const side of ["B", "A"]) {
    const at = stand(state[side]), lean = side === "A" ? -24 : 24;
    const [x, y] = place(at.score, at.method), [u, v] = place(at.nearest.plot, at.method);
    const of = at.nearest.validation;
    const across = (x) => inside(scale.x(x), box.left, box.width - box.right), up = (y) => inside(scale.y(y), box.top - 6, box.height - box.bottom);
    const cross = [s("line", { class: "vs-bar", x1: across(of[axes[0]][1]), x2: across(of[axes[0]][2]), y1: v, y2: v })];
    if (n > 1) cross.push(s("line", { class: "vs-bar", x1: u, x2: u, y1: up(of[axes[1]][1]), y2: up(of[axes[1]][2]) }));
    layerMoving.append(...cross, s("circle", { class: "vs-near", cx: u, cy: v, r: 9 }));
    const px = inside(x, box.left - 8, box.width - 8), py = inside(y, 30, box.height - box.bottom + 8);
    layerMoving.append(s("g", { class: `vs-pin vs-pin-${side}`, "data-side": side, "data-x": x.toFixed(2), "data-y": y.toFixed(2),
      transform: `translate(${px},${py})` },
      s("path", { d: PIN, transform: `rotate(${lean})` }), s("circle", { r: 2.6, class: "vs-tip" }),
      s("text", { x: (side === "A" ? -1 : 1) * 8.1, y: -13.9, "text-anchor": "middle" }, side),
      s("title", {}, `${side}: ${at.measured ? "measured" : "interpolated"}`)));
  }
};

// --- the cards ------------------------------------------------------------------------------------------------------
const cards = {};
const activate = (side) => {
  active = side;
  for (const [name, card] of Object.entries(cards)) card.node.classList.toggle("active", name === side);
  hint.textContent = `Click a point to put ${side} there.`;
};
const choose = (method, one) => {
  state[active] = method.dial ? { method: method.name, weights: [...one.weights], candidate: null,
    locked: state[active].method === method.name ? state[active].locked : method.dial.simplex } : { candidate: one.id };
  if (state[active].locked && Math.abs(one.weights.reduce((a, b) => a + b, 0) - 1) > 1e-6) state[active].locked = false;
  build(active);
  drawMoving();
};
const move = (side, i, weight) => {
  const setting = state[side], weights = setting.weights;
  if (setting.locked && n > 1) {
    weight = inside(weight, 0, 1);
    const rest = weights.reduce((sum, w, k) => sum + (k === i ? 0 : w), 0);
    for (let k = 0; k < n; k++) if (k !== i) weights[k] = rest > 1e-9 ? (weights[k] / rest) * (1 - weight) : (1 - weight) / (n - 1);
  }
  weights[i] = weight;
  refresh(side);
  drawMoving();
};
const estimate = (of) => (of ? [h("b", {}, number(of[0])), h("span", { class: "vs-range" }, ` [${number(of[1])}, ${number(of[2])}]`)] : ["–"]);
const refresh = (side) => {
  const card = cards[side], setting = state[side], at = stand(setting);
  (card.sliders || []).forEach((row, i) => {
    row.slider.value = setting.weights[i];
    row.output.textContent = number(setting.weights[i]);
    const low = Number(row.slider.min), high = Number(row.slider.max);
    row.slider.style.setProperty("--part", `${(100 * (setting.weights[i] - low)) / (high - low)}%`);
  });
  const one = at.nearest;
  const columns = [[one.smoothed ? "validation, smoothed" : "validation", (j) => estimate([one.plot[j], one.validation[j][1], one.validation[j][2]])]];
  if (one.test) columns.push(["test", (j) => estimate(one.test[j])]);
  if (!at.measured) columns.unshift(["here, interpolated", (j) => ["≈ ", h("b", {}, number(at.score[j]))]]);
  card.table.replaceChildren(
    h("thead", {}, h("tr", {}, h("th", {}, "reward"), ...columns.map(([name]) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, ...values.map((value, j) => h("tr", {}, h("th", { scope: "row" }, value), ...columns.map(([, cell]) => h("td", {}, ...cell(j)))))));
  card.nearest.replaceChildren(...(at.measured ? [setting.candidate ? "This policy was evaluated:" : "This is an evaluated candidate:"]
    : ["Nearest evaluated candidate: ", h("b", {}, one.label), `, ${number(at.distance)} away in weights.`]));
  const warnings = [];
  if (at.outside) warnings.push("Extrapolated: no evaluated candidate is near, so the point is a guess.");
  if (one.broken) warnings.push(`Text breaks down here: fluency ${number(one.fluency)} is below the bound.`);
  if (!one.test && !warnings.length) card.warning.textContent = "Not on its method's frontier, so it has no test scores.";
  else card.warning.textContent = warnings.join(" ");
  card.warning.classList.toggle("strong", warnings.length > 0);
};
const build = (side) => {
  const card = cards[side], setting = state[side];
  card.select.value = setting.candidate ? `policy:${setting.candidate}` : `dial:${setting.method}`;
  card.dials.replaceChildren();
  card.sliders = null;
  if (!setting.candidate) {
    const dial = byName[setting.method].dial;
    const high = setting.locked ? 1 : dial.high;
    card.sliders = values.map((value, i) => {
      const slider = h("input", { type: "range", min: setting.locked ? 0 : dial.low, max: high, step: 0.01, "aria-label": `${side}: weight of ${value}`,
        oninput: () => { activate(side); move(side, i, Number(slider.value)); } });
      const output = h("output", {});
      card.dials.append(h("label", { class: "vs-slider" }, h("span", {}, value), slider, output));
      return { slider, output };
    });
    if (n > 1) card.dials.append(h("label", { class: "vs-lock" }, h("input", { type: "checkbox", checked: setting.locked,
      onchange: (event) => {
        setting.locked = event.target.checked;
        const sum = setting.weights.reduce((a, b) => a + Math.max(0, b), 0);
        if (setting.locked) setting.weights = setting.weights.map((w) => (sum > 1e-9 ? Math.max(0, w) / sum : 1 / n));
        activate(side); build(side); drawMoving();
      } }), " weights sum to 1"));
  } else card.dials.append(h("p", { class: "vs-nodial" }, setting.candidate === "base" ? "The base model: all weights are 0." : "A finished policy: it was trained for one trade-off and has no dial."));
  card.export.disabled = setting.candidate === "base";
  refresh(side);
};
const card = (side) => {
  const select = h("select", { "aria-label": `${side}: method`, onchange: () => {
    const [kind, ...rest] = select.value.split(":"), name = rest.join(":");
    state[side] = kind === "dial" ? fresh(byName[name]) : { candidate: name };
    activate(side); build(side); drawMoving();
  } });
  if (dials.length) select.append(h("optgroup", { label: "with a dial" }, ...dials.map((method) => h("option", { value: `dial:${method.name}` }, method.title))));
  if (policies.length) select.append(h("optgroup", { label: "finished policies" }, ...policies.map(({ method, one }) =>
    h("option", { value: `policy:${one.id}` }, one.id === "base" ? "Base model" : `${method.title} · ${one.label}`))));
  const made = { select, dials: h("div", { class: "vs-dials" }), nearest: h("p", { class: "vs-nearest" }), table: h("table", { class: "vs-table" }), warning: h("p", { class: "vs-warning" }) };
  made.export = h("button", { type: "button", class: "vs-export", onclick: () => {
    if (side === "A") trigger("export_a", { setting: JSON.stringify(sent(state.A)) });
    else trigger("export_b", { setting: JSON.stringify(sent(state.B)) });
  } }, `Export ${side}`);
  made.node = h("section", { class: "vs-card", "data-side": side, "aria-label": `Setting ${side}`, onpointerdown: () => activate(side), onfocusin: () => activate(side) },
    h("header", {}, h("span", { class: `vs-badge vs-badge-${side}` }, side), select, made.export),
    made.dials, made.nearest, made.table, made.warning);
  cards[side] = made;
  return made.node;
};

// --- put together ---------------------------------------------------------------------------------------------------
const hint = h("span", { class: "vs-hint" });
const legend = h("div", { class: "vs-legend" }, ...data.methods.map((method) => {
  const glyph = s("svg", { viewBox: "-1.3 -1.3 2.6 2.6" }, s("path", { d: method.path, fill: method.dial ? method.colour : "none", stroke: method.colour, "stroke-width": method.dial ? 0.1 : 0.35 }));
  const chip = h("button", { type: "button", "aria-pressed": "true", title: method.dial ? "a method with a dial; click to hide" : "finished policies; click to hide", onclick: () => {
    if (!hidden.delete(method.name)) hidden.add(method.name);
    chip.setAttribute("aria-pressed", String(!hidden.has(method.name)));
    drawStill();
  } }, glyph, method.title);
  return chip;
}));
const axis = (which) => {
  const select = h("select", { "aria-label": which ? "vertical axis" : "horizontal axis", onchange: () => { axes[which] = Number(select.value); drawStill(); } },
    ...values.map((value, j) => h("option", { value: j, selected: axes[which] === j }, value)));
  return h("label", {}, which ? "up " : "across ", select);
};
root.append(
  h("div", { class: "vs-plot" }, legend, n > 2 ? h("div", { class: "vs-axes" }, axis(0), axis(1)) : null, svg,
    h("p", { class: "vs-note" }, hint, ` Each point is one evaluated candidate: its mean reward on the validation prompts. Large points are on their method's frontier${
      data.methods.some((method) => !method.dial) ? ", rings are policies without a dial" : ""}, the grey diamond is the base model. ${
      dials.length ? "Pins between points are interpolated. " : ""}Lines at a pin are the ${Math.round(100 * data.level)} % intervals of the nearest candidate.`)),
  h("div", { class: "vs-cards" }, card("A"), card("B")));
activate("A");
build("A");
build("B");
drawStill();
new ResizeObserver(() => { if (Math.abs(svg.clientWidth - box.width) > 1 && svg.clientWidth) drawStill(); }).observe(root);
