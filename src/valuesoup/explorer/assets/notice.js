// What an export came to: a sentence, a folder, a command; as text.
const draw = () => {
  const root = element.querySelector(".vs-notice"), value = props.value || {};
  root.replaceChildren();
  root.className = `vs-notice${value.text ? "" : " vs-none"}${value.error ? " vs-error" : ""}`;
  if (!value.text) return;
  const text = document.createElement("p");
  text.textContent = value.text;
  root.append(text);
  if (value.command) {
    const code = document.createElement("pre");
    code.textContent = value.command;
    root.append(code);
  }
};
watch("value", draw);
draw();
