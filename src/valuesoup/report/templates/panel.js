"use strict";
// Links the figures: a candidate chosen in one of them or in a table is ringed in all, and the panel tells about it.
// What models wrote becomes text nodes, nothing else.
const told = JSON.parse(document.getElementById("told").textContent);
const ids = Object.keys(told.candidates);
const panel = document.getElementById("panel");
const bar = document.getElementById("chosen");
const REACH = 28; // how far from a point a click may be, in pixels
const views = new Map(); // chart to its view
let chosen = told.first;

function el(name, properties = {}, ...children) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

function chip(method) {
  const [path, colour] = told.marks[method] ?? ["M-.85,0a.85,.85 0 1,0 1.7,0a.85,.85 0 1,0 -1.7,0Z", "gray"];
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const mark = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", "-1.1 -1.1 2.2 2.2");
  svg.setAttribute("aria-hidden", "true");
  mark.setAttribute("d", path);
  mark.setAttribute("fill", colour);
  svg.append(mark);
  return el("span", { className: "chip" }, svg, method);
}

function table(rows, headings, caption) {
  const cells = (row, first, rest) =>
    row.map((text, k) => {
      const cell = el(k ? rest : first, { className: k ? "number" : "" }, text);
      if (!k && first === "th") cell.scope = "row";
      return cell;
    });
  const made = el("table", {}, el("caption", {}, caption));
  if (headings) {
    made.append(el("thead", {}, el("tr", {}, ...headings.map((text, k) => el("th", { className: k ? "number" : "" }, text)))));
  }
  made.append(el("tbody", {}, ...rows.map((row) => el("tr", {}, ...cells(row, "th", "td")))));
  return made;
}

function weights(of) {
  const rows = of.weights.map(([value, text, share]) => {
    const fill = el("i");
    fill.style.width = `${100 * share}%`;
    return el("div", { className: "weight" }, el("span", {}, value), el("span", { className: "track" }, fill), el("b", {}, text));
  });
  return el("div", { className: "weights" }, ...rows);
}

function answer([number, place, scores], open) {
  const turns = told.prompts[number];
  const before = turns.slice(0, -1).map(([role, content]) => el("p", { className: "turn" }, el("b", {}, role), content));
  return el(
    "details",
    { open },
    el("summary", {}, turns.length ? turns[turns.length - 1][1] : "prompt"),
    ...before,
    el("p", { className: "text" }, told.texts[place]),
    el("p", { className: "meta" }, scores),
  );
}

function answers(of) {
  if (!of.answers.length) return [];
  const [first, ...others] = of.answers.map((given, k) => answer(given, k === 0));
  const more = others.length ? [el("details", { className: "others" }, el("summary", {}, `${others.length} more`), ...others)] : [];
  const left = told.left ? [el("p", { className: "meta" }, `Of ${told.left} more prompts the answers would make this page too large.`)] : [];
  return [el("h4", {}, "Answers to sample prompts"), first, ...more, ...left];
}

function fill(id) {
  const of = told.candidates[id];
  const title = el("h3", {}, chip(of.method));
  const step = (text, name, by) => el("button", { type: "button", title: name, ariaLabel: name, onclick: () => choose(next(ids, by)) }, text);
  const buttons = el("div", { className: "steps" }, step("‹", "previous candidate", -1), step("›", "next candidate", 1));
  const about = el("div", {}, of.weights.length ? weights(of) : el("p", {}, of.label), ...of.notes.map((text) => note(text)));
  const scores = of.columns.length ? [table(of.scores, ["", ...of.columns], "Scores")] : [];
  const quality = of.quality.length ? [table(of.quality, of.quality.some((row) => row[2]) ? ["", "here", "base"] : null, "Signs of quality")] : [];
  const geometry = of.geometry.length ? [table(of.geometry, null, "Geometry of its method")] : [];
  panel.replaceChildren(
    el("div", { className: "top" }, title, buttons),
    el(
      "div",
      { className: "about" },
      el("div", {}, about, ...scores),
      el("div", {}, ...answers(of)),
      el("div", { className: "signs" }, ...quality, ...geometry),
    ),
  );
  panel.scrollTop = 0;
  bar.replaceChildren(chip(of.method), el("span", {}, of.label), el("a", { href: "#panel" }, "details"));
}

function note(text) {
  return el("p", { className: text.startsWith("Caution") ? "caution" : "meta" }, text);
}

function next(list, by) {
  const at = list.indexOf(chosen);
  return list[at < 0 ? 0 : (at + by + list.length) % list.length];
}

function choose(id, asked = true) {
  chosen = id;
  fill(id);
  for (const view of views.values()) view.signal("chosen", id).runAsync();
  for (const node of document.querySelectorAll("[data-candidate]")) {
    const own = node.dataset.candidate === id;
    node.classList.toggle("chosen", own);
    if (own) node.setAttribute("aria-current", "true");
    else node.removeAttribute("aria-current");
  }
  if (asked) bar.dataset.asked = "";
}

// The candidate of the mark that was hit: of the nearest point, or of a line or bar that is one candidate's.
function hit(chart, event) {
  let best = null;
  let least = REACH;
  for (const path of chart.querySelectorAll('[aria-roledescription="point"]')) {
    const id = path.__data__?.datum?.id;
    if (!id || !(id in told.candidates)) continue;
    const box = path.getBoundingClientRect();
    const far = Math.hypot(event.clientX - box.x - box.width / 2, event.clientY - box.y - box.height / 2);
    if (far < least) [best, least] = [id, far];
  }
  if (best) return best;
  const mark = event.target.__data__?.mark;
  const own = new Set(mark?.marktype === "line" ? mark.items.map(({ datum }) => datum.id) : [event.target.__data__?.datum?.id]);
  const [id] = own;
  return own.size === 1 && id in told.candidates ? id : null;
}

function within(chart) {
  const found = new Set();
  for (const path of chart.querySelectorAll('[aria-roledescription="point"]')) found.add(path.__data__?.datum?.id);
  return ids.filter((id) => found.has(id));
}

const KEYS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

document.addEventListener("drawn", ({ target: chart, detail: view }) => {
  if (!views.has(chart)) {
    chart.classList.add("linked");
    chart.tabIndex = 0;
    chart.setAttribute("role", "group");
    chart.setAttribute("aria-label", `${chart.getAttribute("aria-label")} Arrow keys step through its candidates.`);
    chart.addEventListener("click", (event) => {
      const id = hit(chart, event);
      if (id) choose(id);
    });
    chart.addEventListener("keydown", (event) => {
      const list = within(chart);
      if (!list.length || event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.key in KEYS) choose(next(list, KEYS[event.key]));
      else if (event.key === "Home") choose(list[0]);
      else if (event.key === "End") choose(list[list.length - 1]);
      else return;
      event.preventDefault();
    });
  }
  views.set(chart, view);
  view.signal("chosen", chosen).runAsync();
});

for (const row of document.querySelectorAll("tr[data-candidate]")) {
  row.tabIndex = 0;
  row.addEventListener("click", () => choose(row.dataset.candidate));
  row.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    choose(row.dataset.candidate);
    event.preventDefault();
  });
}

// Paper has no panel, and so no ring.
addEventListener("beforeprint", () => views.forEach((view) => view.signal("chosen", "").run()));
addEventListener("afterprint", () => views.forEach((view) => view.signal("chosen", chosen).run()));

// Away from the panel, a bar at the foot of the window says which candidate is ringed.
new IntersectionObserver(([{ isIntersecting }]) => bar.classList.toggle("away", !isIntersecting)).observe(panel);
panel.hidden = bar.hidden = false;
choose(chosen, false);
