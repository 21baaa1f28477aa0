// Creates elements. Text is inserted as text nodes and attributes are set by name, so that no text from the network can become
// markup. Invisible characters (control characters, direction marks, spaces without width) are shown as numbers.

const SVG = "http://www.w3.org/2000/svg";
const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Zl}\p{Zp}]/gu;

export const byId = (id) => document.getElementById(id);

// Escapes invisible characters.
export function shown(text) {
  return String(text).replace(UNSEEN, (mark) => `\\u{${mark.codePointAt(0).toString(16)}}`);
}

// el("td.num", { title: "..." }, "text", node, ...); null, undefined and false are left out.
export function el(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  return build(document.createElement(tag), classes, attributes, children);
}

// The same for SVG.
export function svg(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  return build(document.createElementNS(SVG, tag), classes, attributes, children);
}

function build(node, classes, attributes, children) {
  if (classes.length > 0) node.setAttribute("class", classes.join(" "));
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, shown(value));
  }
  append(node, children);
  return node;
}

// Replaces all children.
export function fill(node, ...children) {
  node.replaceChildren();
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : shown(child));
  }
}

// Changes a text only if it differs, so that a screen reader doesn't read it again.
export function setText(node, text) {
  const wanted = shown(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

// The same for attributes.
export function set(node, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    const wanted = shown(value);
    if (node.getAttribute(key) !== wanted) node.setAttribute(key, wanted);
  }
}

// Shows an error below a form; null removes it.
export function showProblem(node, text) {
  node.hidden = !text;
  setText(node, text ?? "");
}

// A button that copies a text. Browsers have the clipboard API on loopback and with TLS only; otherwise the text is copied from
// an invisible field.
export function copier(text, what) {
  const button = el("button.copy", { type: "button", "aria-label": `Copy ${what}` }, "Copy");
  button.addEventListener("click", async () => {
    const done = await copy(text, button);
    setText(button, done ? "Copied" : "Not copied");
    setTimeout(() => setText(button, "Copy"), 1500);
  });
  return button;
}

async function copy(text, beside) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // not allowed: copy from a field
    }
  }
  const field = el("textarea.unseen", { "aria-hidden": "true", tabindex: "-1" });
  field.value = text;
  beside.after(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  beside.focus();
  return done;
}
