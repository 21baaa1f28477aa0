// The field for an id at the top of the page: as it was read out on the telephone, in any case, with blanks or hyphens.

import { get } from "./api.js";
import { byId, setText } from "./dom.js";

const LENGTH = 8;
// As in the daemon: O is 0, I and L are 1; U is in no id.
const READ_AS = { O: "0", I: "1", L: "1" };

export function start() {
  byId("find").addEventListener("submit", (event) => {
    event.preventDefault();
    find();
  });
  byId("find").id.addEventListener("input", () => problem(null));
  byId("find-close").addEventListener("click", () => {
    problem(null);
    byId("find").id.focus();
  });
}

// The id, or what is wrong with the text.
export function read(text) {
  const id = text.toUpperCase().replace(/[\s\p{Pd}_.]/gu, "").replace(/[OIL]/g, (letter) => READ_AS[letter]);
  const rule = `an id has ${LENGTH} letters and digits, such as 4KXN7Q2M`;
  if (id === "") return { wrong: `Enter the id of a decision: ${rule}.` };
  const odd = [...id].find((letter) => !/[0-9A-HJKMNP-TV-Z]/.test(letter));
  if (odd) return { wrong: `“${text.trim()}” is not an id: ${odd === "U" ? "no id has the letter U; it may be a V" : `“${odd}” is in no id`}.` };
  if (id.length !== LENGTH) return { wrong: `“${text.trim()}” is not an id: ${rule}; this has ${id.length}.` };
  return { id };
}

async function find() {
  const field = byId("find").id;
  const { id, wrong } = read(field.value);
  problem(wrong);
  if (wrong) {
    field.focus();
    return;
  }
  try {
    await get(`decisions/${id}`);
  } catch (error) {
    problem(error.status === 404 ? error.message : `${id} can't be looked up: ${error.message}.`);
    field.focus();
    return;
  }
  field.value = "";
  location.hash = `decision/${id}`;
}

function problem(text) {
  byId("find-problem").hidden = !text;
  setText(byId("find-text"), text ?? "");
}
