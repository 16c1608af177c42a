"use strict";
// Draws every figure, fitted to its width; colours of text and axes are CSS variables, so that dark and print
// need no second drawing.
const specs = JSON.parse(document.getElementById("specs").textContent);
const theme = JSON.parse(document.getElementById("theme").textContent);
const PANEL = 260; // the narrowest panel of small multiples, in pixels
const SMALL = 140; // the same in a matrix
const AXIS = 60; // what an axis with its title takes beside a panel

function fitted(spec, width) {
  const fit = structuredClone(spec);
  if (fit.concat) {
    const axis = fit.usermeta?.aspect ? 0 : AXIS; // a triangle has its ticks inside its panel
    const whole = fit.usermeta?.matrix && width >= fit.columns * (SMALL + axis);
    if (fit.usermeta?.matrix && !whole) fit.concat = fit.concat.filter(({ name }) => !name?.startsWith("empty"));
    const wanted = fit.usermeta?.matrix && !whole ? 2 : fit.columns;
    let columns = whole ? wanted : Math.max(1, Math.min(wanted, Math.floor(width / (PANEL + axis))));
    if (wanted === 4 && columns === 3) columns = 2; // keep what belongs to one row in whole rows
    fit.columns = columns;
    const room = Math.floor((width - 28 * (columns - 1)) / columns) - axis;
    for (const panel of fit.concat) {
      panel.width = room;
      if (fit.usermeta?.aspect) panel.height = room * fit.usermeta.aspect;
    }
  } else {
    fit.width = width;
    fit.autosize = { type: "fit-x", contains: "padding" };
  }
  return fit;
}

async function draw(node) {
  const width = Math.floor(node.clientWidth);
  if (!width || node.drawnAt === width) return;
  node.drawnAt = width;
  const config = structuredClone(theme);
  config.legend.columns = Math.max(1, Math.min(5, Math.floor(width / 150)));
  node.view?.finalize();
  const spec = fitted(specs[node.dataset.figure], width);
  const { view } = await vegaEmbed(node, spec, { config, renderer: "svg", actions: false, tooltip: { theme: "custom" } });
  node.view = view;
  const linked = spec.params?.some(({ name }) => name === "chosen");
  if (linked) node.dispatchEvent(new CustomEvent("drawn", { bubbles: true, detail: view }));
}

const waiting = new Map();
const observer = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    clearTimeout(waiting.get(target));
    waiting.set(target, setTimeout(() => draw(target), 120));
  }
});
for (const node of document.querySelectorAll(".chart")) {
  draw(node);
  observer.observe(node);
}

addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
