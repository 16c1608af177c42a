// A conversation as text: whatever a person or a model wrote becomes a text node, never markup.
const h = (tag, name, ...children) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  node.append(...children);
  return node;
};
const number = (x) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(2);
const STATES = { writing: "writing …", stopped: "stopped", cut: "cut at the longest answer", scoring: "scoring …" };
const turn = (of) => {
  const node = h("article", "vs-turn");
  for (const before of of.before || []) node.append(h("p", "vs-said vs-before", h("b", "", before.role), document.createTextNode(before.content)));
  node.append(h("p", "vs-said vs-user", document.createTextNode(of.prompt)));
  const answer = h("p", `vs-said vs-answer${of.state === "writing" ? " vs-writing" : ""}`, document.createTextNode(of.answer));
  if (!of.answer && of.state !== "writing" && of.state !== "error") answer.append(h("i", "", "(an empty answer)"));
  if (of.state === "error") answer.classList.add("vs-error");
  const foot = h("footer", "", h("span", "vs-at", document.createTextNode(of.label)));
  for (const [value, score, best] of of.scores || []) foot.append(h("span", `vs-score${best ? " best" : ""}`, document.createTextNode(`${value} `), h("b", "", number(score))));
  if (STATES[of.state]) foot.append(h("span", "vs-state", STATES[of.state]));
  node.append(answer, foot);
  return node;
};
const draw = () => {
  const root = element.querySelector(".vs-dialogue");
  const turns = (props.value && props.value.turns) || [];
  root.replaceChildren(h("h3", "", h("span", `vs-badge vs-badge-${props.side}`, props.side), "answers"), ...turns.map(turn));
  root.scrollTop = root.scrollHeight;
  if (!turns.length) root.append(h("p", "vs-empty", "Ask something: both settings answer the same prompt."));
};
watch("value", draw);
draw();
