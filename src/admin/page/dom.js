// Makes elements. Text goes in as text nodes and attributes by name: there is no way from here to markup, so nothing
// that came from the network can become any. What a reader couldn't see in it (control characters, marks that turn
// the direction of writing, blanks without width) is shown as its number.

const SVG = "http://www.w3.org/2000/svg";
const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Zl}\p{Zp}]/gu;

export const byId = (id) => document.getElementById(id);

// A text as it may be shown.
export function shown(text) {
  return String(text).replace(UNSEEN, (mark) => `\\u{${mark.codePointAt(0).toString(16)}}`);
}

// el("td.num", { title: "..." }, "text", node, ...): what is null, undefined or false is left out.
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

// Puts these in the place of all that is there.
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

// Changes a text only where it is another: whatever reads it aloud is not disturbed.
export function say(node, text) {
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

// Says what went wrong below a form, or takes it back.
export function complain(node, text) {
  node.hidden = !text;
  say(node, text ?? "");
}

// A button that copies a text. Without the clipboard (it is there on loopback and with TLS) the text is copied from a
// field that nobody sees.
export function copier(text, what) {
  const button = el("button.copy", { type: "button", "aria-label": `Copy ${what}` }, "Copy");
  button.addEventListener("click", async () => {
    const done = await copy(text, button);
    say(button, done ? "Copied" : "Not copied");
    setTimeout(() => say(button, "Copy"), 1500);
  });
  return button;
}

async function copy(text, beside) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // not allowed: the other way
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
