"use strict";
// Draws every figure, fitted to its width; colours of text and axes are CSS variables, so that dark and print
// need no second drawing.
const specs = JSON.parse(document.getElementById("specs").textContent);
const theme = JSON.parse(document.getElementById("theme").textContent);
const PANEL = 260; // the narrowest panel of small multiples, in pixels
const AXIS = 60; // what an axis with its title takes beside a panel

function fitted(spec, width) {
  const fit = structuredClone(spec);
  if (fit.concat) {
    const wanted = fit.columns;
    let columns = Math.max(1, Math.min(wanted, Math.floor(width / (PANEL + AXIS))));
    if (wanted === 4 && columns === 3) columns = 2; // keep what belongs to one row in whole rows
    fit.columns = columns;
    const room = Math.floor((width - 28 * (columns - 1)) / columns) - AXIS;
    for (const panel of fit.concat) panel.width = room;
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
  node.view = await vegaEmbed(node, spec, { config, renderer: "svg", actions: false, tooltip: { theme: "custom" } });
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
