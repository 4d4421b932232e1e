// The page Query: names offered while a query is typed, and the history of this browser.
"use strict";

{ // names of its own, whatever other scripts of the page declare
const editor = document.getElementById("query");

// What can be written, as the page describes it beside the editor.
const help = document.getElementById("help-tables");
const TABLES = new Map();
for (const part of help.querySelectorAll("[data-table]")) {
  const fields = [...part.querySelectorAll("[data-field]")].map((field) => field.textContent);
  const relations = new Map();
  for (const relation of part.querySelectorAll("[data-relation]")) {
    relations.set(relation.textContent.replace(".…", ""), relation.dataset.relation);
  }
  TABLES.set(part.dataset.table, { fields, relations });
}
const OPERATORS = help.dataset.operators.split(",");
const FUNCTIONS = help.dataset.functions.split(",");
const QUERY_KEYS = ["from", "select", "where", "groupBy", "having", "orderBy", "distinct", "limit", "limitPer", "offset"];
const CONDITION_KEYS = ["field", "operator", "value", "valueField", "conditions", "logic", "direction", "fields", "count"];
const MOST_OFFERED = 50;

// Where the caret is: the string before it, the name that the string is the value of, and how deep.
const place = () => {
  const before = editor.value.slice(0, editor.selectionStart);
  const open = [];
  let inString = false;
  let start = 0;
  for (let at = 0; at < before.length; at += 1) {
    const character = before[at];
    if (inString) {
      if (character === "\\") at += 1;
      else if (character === '"') inString = false;
    } else if (character === '"') {
      inString = true;
      start = at + 1;
    } else if ("{[".includes(character)) {
      open.push({ bracket: character, at });
    } else if ("}]".includes(character)) {
      open.pop();
    }
  }
  if (!inString) return undefined;
  const text = before.slice(start);
  const ahead = before.slice(0, start - 1);
  const inner = open.at(-1)?.bracket;
  const name = /"(\w+)"\s*:\s*$/.exec(ahead)?.[1];
  const list = inner === "[" ? /"(\w+)"\s*:\s*$/.exec(ahead.slice(0, open.at(-1).at))?.[1] : undefined;
  return { text, name, list, isKey: inner === "{" && !name, depth: open.length };
};

// Names that contain the word: those that begin with it first, the shortest of them first of all.
const ranked = (names, word) => {
  const sought = word.toLowerCase();
  const fitting = names.filter((name) => name.toLowerCase().includes(sought));
  if (!sought) return fitting;
  const rank = (name) => (name.toLowerCase().startsWith(sought) ? 0 : 1000) + name.length;
  return fitting.sort((one, other) => rank(one) - rank(other));
};

const fieldsFor = (text) => {
  const from = /"from"\s*:\s*"(\w+)"/.exec(editor.value)?.[1];
  let table = TABLES.get(from);
  if (!table) return [];
  const path = text.split(".");
  const word = path.pop();
  for (const step of path) table = TABLES.get(table?.relations.get(step));
  if (!table) return [];
  const prefix = path.map((step) => `${step}.`).join("");
  const names = [...table.fields, ...[...table.relations.keys()].map((name) => `${name}.`)];
  return ranked(names, word).map((name) => `${prefix}${name}`);
};

// The names that fit at the caret, and the part of the text that one of them replaces.
const offers = () => {
  const here = place();
  if (!here) return { word: "", names: [] };
  if (here.isKey) {
    const names = here.depth === 1 ? QUERY_KEYS : CONDITION_KEYS;
    return { word: here.text, names: ranked(names, here.text) };
  }
  if (here.name === "from") return { word: here.text, names: ranked([...TABLES.keys()], here.text) };
  if (here.name === "operator") return { word: here.text, names: ranked(OPERATORS, here.text) };
  if (here.name === "direction") return { word: here.text, names: ranked(["asc", "desc"], here.text) };
  if (here.name === "logic") return { word: here.text, names: ranked(["and", "or"], here.text) };
  const takesField = ["field", "valueField"].includes(here.name) || ["select", "groupBy", "fields"].includes(here.list);
  if (!takesField) return { word: "", names: [] };
  const word = /[\w.]*$/.exec(here.text)[0]; // inside of COUNT( too
  const functions = here.list === "select" && word === here.text
    ? FUNCTIONS.map((name) => `${name}(`).filter((name) => word && name.startsWith(word.toUpperCase()))
    : [];
  return { word, names: [...fieldsFor(word), ...functions] };
};

const list = document.getElementById("completions");
let offered = { word: "", names: [] };
let chosen = 0;

const hide = () => {
  list.hidden = true;
  editor.removeAttribute("aria-activedescendant");
};

const choose = (number) => {
  chosen = (number + list.children.length) % list.children.length;
  for (const [index, item] of [...list.children].entries()) item.setAttribute("aria-selected", index === chosen);
  list.children[chosen].scrollIntoView({ block: "nearest" });
  editor.setAttribute("aria-activedescendant", list.children[chosen].id);
};

// Below the caret: an invisible copy of the text says where that is.
const move = () => {
  const mirror = document.createElement("div");
  mirror.className = "mirror";
  mirror.textContent = editor.value.slice(0, editor.selectionStart);
  const caret = document.createElement("span");
  caret.textContent = "|";
  mirror.append(caret);
  editor.after(mirror);
  const left = Math.min(caret.offsetLeft, editor.clientWidth - list.offsetWidth);
  list.style.left = `${Math.max(0, left)}px`;
  list.style.top = `${Math.min(caret.offsetTop + caret.offsetHeight - editor.scrollTop + 4, editor.offsetHeight)}px`;
  mirror.remove();
};

const offer = (always) => {
  offered = offers();
  const isDone = offered.names.length === 1 && offered.names[0] === offered.word;
  if (!offered.names.length || isDone || !(always || offered.word)) return hide();
  list.replaceChildren(...offered.names.slice(0, MOST_OFFERED).map((name, number) => {
    const item = document.createElement("li");
    item.id = `completion-${number}`;
    item.setAttribute("role", "option");
    item.textContent = name;
    return item;
  }));
  list.hidden = false;
  choose(0);
  move();
};

const accept = (name) => {
  const end = editor.selectionStart;
  editor.setSelectionRange(end - offered.word.length, end);
  // insertText keeps the editor's undo; setRangeText would lose it
  if (!document.execCommand("insertText", false, name)) editor.setRangeText(name, end - offered.word.length, end, "end");
  hide();
  if (name.endsWith(".")) offer(true);
};

editor.addEventListener("input", (event) => {
  document.getElementById("question").textContent = "";
  if (event.inputType !== "insertText" || event.data !== "\n") offer(event.data === '"');
});
editor.addEventListener("blur", () => setTimeout(hide, 150));
editor.addEventListener("click", hide);
editor.addEventListener("keydown", (event) => {
  if (event.key === " " && event.ctrlKey) {
    event.preventDefault();
    offer(true);
    return;
  }
  if (list.hidden || event.ctrlKey || event.metaKey) return;
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) choose(chosen + step);
  else if (event.key === "Enter" || event.key === "Tab") accept(offered.names[chosen]);
  else if (event.key === "Escape") hide();
  else {
    if (["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) hide();
    return;
  }
  event.preventDefault();
  event.stopPropagation();
});
list.addEventListener("mousedown", (event) => {
  event.preventDefault(); // the editor keeps the focus
  const item = event.target.closest("[role=option]");
  if (item) accept(item.textContent);
});

// History: the last queries that were answered, in this browser, for each administrator.
const historyList = document.getElementById("history");
const STORED = `pvemcp queries ${historyList.dataset.account}`;
const MOST_KEPT = 30;
const stored = () => {
  try {
    return JSON.parse(localStorage.getItem(STORED) ?? "[]");
  } catch {
    return []; // the storage is off, or something else is in it
  }
};
const store = (queries) => {
  try {
    localStorage.setItem(STORED, JSON.stringify(queries));
  } catch {
    // full, or off: the history is a convenience
  }
};
const inOneLine = (query) => query.replace(/\s+/g, " ").slice(0, 200);
const showHistory = () => {
  const queries = stored();
  historyList.replaceChildren(...queries.map((query) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet small";
    button.textContent = inOneLine(query);
    button.addEventListener("click", () => {
      editor.value = query;
      document.getElementById("question").textContent = "";
      editor.focus();
    });
    item.append(button);
    return item;
  }));
  document.getElementById("no-history").hidden = queries.length > 0;
  document.getElementById("clear-history").hidden = !queries.length;
};
let running = "";
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.target.id === "answer") running = editor.value;
});
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.target.id !== "answer" || !running) return;
  store([running, ...stored().filter((query) => query !== running)].slice(0, MOST_KEPT));
  showHistory();
});
document.getElementById("clear-history").addEventListener("click", () => {
  store([]);
  showHistory();
  document.getElementById("help-history-tab").focus();
});
showHistory();
}
