
"use strict";
// All texts become text nodes; nothing from the data is ever read as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const at = id => document.getElementById(id);
const STEP = 40; // prompts that are added at a time
const last = data.columns.length - 1;
const firstJudged = data.columns.findIndex(one => one.judged);
const state = { q: "", show: "all", group: "", sort: "lost", from: 0, to: last, boxes: false, echo: "b", open: "" };
let found = [], drawn = 0;

function make(tag, attributes, ...children) {
  const one = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "class") one.className = value;
    else if (name.startsWith("on")) one.addEventListener(name.slice(2), value);
    else one.setAttribute(name, value);
  }
  one.append(...children.filter(child => child !== null && child !== undefined));
  return one;
}

function drawing(tag, attributes) {
  const one = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
  return one;
}

// What a prompt got in a column: of the chosen category, or of all.
function value(prompt, column) {
  const values = state.group ? prompt.groups[state.group] : prompt.values;
  if (!values) return null;
  // Verdicts of pairs compare with the baseline already, which has none of its own.
  if (values[column] === null && data.pairwise && !data.columns[column].judged) return 0;
  return values[column];
}

function change(prompt) {
  const before = value(prompt, state.from), after = value(prompt, state.to);
  return before === null || after === null ? null : after - before;
}

const small = 1e-6; // values are rounded to that
const SHOW = {
  all: ["All", () => true],
  lost: ["Lost", prompt => change(prompt) < -small],
  gained: ["Gained", prompt => change(prompt) > small],
  same: ["Unchanged", prompt => change(prompt) !== null && Math.abs(change(prompt)) <= small],
  wrong: [data.pairwise ? "Not won" : "Not all right", prompt => {
    const one = value(prompt, state.to);
    return one !== null && one < 1 - small;
  }],
  failed: ["Judging failed", prompt => prompt.failed[state.from] + prompt.failed[state.to] > 0],
};
const NONE = Infinity;
const orNone = (number, sign) => number === null ? NONE : sign * number;
const SORT = {
  lost: ["most lost first", prompt => orNone(change(prompt), 1)],
  gained: ["most gained first", prompt => orNone(change(prompt), -1)],
  worst: ["worst first", prompt => orNone(value(prompt, state.to), 1)],
  id: ["by prompt id", () => 0],
};

// Texts in which a search looks: the prompt, its id, verdicts and what a judge said.
function searched(prompt) {
  if (prompt.searched === undefined) {
    const texts = [prompt.id, prompt.text];
    for (const image of prompt.images) for (const cell of image.cells) {
      texts.push(cell.verdict, cell.words || "", ...(cell.boxes || []).map(box => box[4]));
      for (const table of cell.tables || []) texts.push(...table.rows.map(row => row.join(" ")));
    }
    prompt.searched = texts.join("\n").toLowerCase();
  }
  return prompt.searched;
}

function shownNumber(number, sign) {
  if (number === null) return "–";
  const text = (Math.round(number * 100) / 100 + 0).toFixed(2);
  return (sign && number > small ? "+" : "") + text.replace("-0.00", "0.00").replace("-", "−");
}

function kind(cell) {
  if (cell.verdict === "" || cell.outcome === null) return "";
  if (data.pairwise) return cell.outcome > 0 ? "right" : cell.outcome < 0 ? "wrong" : "";
  return cell.outcome >= 1 - small ? "right" : "wrong";
}

function picture(cell) {
  const small = Math.max(cell.width, cell.height) <= 128;
  const inside = [make("img", {
    src: "data:image/webp;base64," + cell.src, width: cell.width, height: cell.height, alt: "", class: small ? "small" : "",
  })];
  if (cell.boxes) {
    const over = drawing("svg", { viewBox: `0 0 ${cell.width} ${cell.height}`, "aria-hidden": "true" });
    for (const [x1, y1, x2, y2, label] of cell.boxes) {
      const one = drawing("g", {});
      const title = drawing("title", {});
      title.textContent = label;
      const place = { x: Math.min(x1, x2), y: Math.min(y1, y2), width: Math.abs(x2 - x1), height: Math.abs(y2 - y1) };
      one.append(title, drawing("rect", place), drawing("rect", place));
      over.append(one);
    }
    inside.push(over);
  }
  return make("div", { class: "picture" }, ...inside);
}

const MARKS = { right: "✓ ", wrong: "✗ ", "": "" };

function figure(cell) {
  const one = kind(cell);
  const failed = cell.verdict !== "" && cell.outcome === null;
  return make("figure", { class: failed ? "missing" : one }, picture(cell),
    make("figcaption", {}, MARKS[one] + cell.verdict));
}

function strip(prompt) {
  const many = prompt.images.length > 1;
  return make("div", { class: "strip" }, ...data.columns.map((column, place) => {
    const one = column.judged ? `${column.label}: ${shownNumber(value(prompt, place))}` : column.label;
    return make("div", { class: "column" }, make("div", { class: "label" }, one),
      make("div", { class: many ? "images many" : "images" }, ...prompt.images.map(image => figure(image.cells[place]))));
  }));
}

function tableOf(one) {
  const body = one.rows.map((row, place) =>
    make("tr", { class: one.wrong[place] ? "wrong" : "" }, ...row.map(text => make("td", { dir: "auto" }, text))));
  const head = one.columns.length ? [make("thead", {}, make("tr", {}, ...one.columns.map(name => make("th", {}, name))))] : [];
  return make("table", { "aria-label": one.name }, ...head, make("tbody", {}, ...body));
}

function echoOf(words) {
  const line = make("p", { class: "echo", dir: "auto" });
  for (const [space, text, p, b, told] of words) {
    const names = ["word", "p" + p];
    if (b !== null) names.push("b" + b, ...(b < 0 ? ["less"] : []));
    line.append(space ? " " : "", make("span", { class: names.join(" "), title: told }, text));
  }
  return line;
}

function card(cell, column) {
  const inside = [make("div", { class: "label" }, column.label), figure(cell)];
  if (cell.words) inside.push(make("blockquote", { dir: "auto" }, cell.words));
  if (cell.echo) inside.push(echoOf(cell.echo));
  for (const one of cell.tables || []) inside.push(tableOf(one));
  if (cell.boxes) inside.push(make("ol", {}, ...cell.boxes.map(box => make("li", { dir: "auto" }, box[4] || "box"))));
  if (cell.facts) {
    const list = make("dl", {});
    for (const [name, text] of cell.facts) list.append(make("dt", {}, name.replaceAll("_", " ")), make("dd", { dir: "auto" }, text));
    inside.push(list);
  }
  inside.push(make("p", { class: "file" }, cell.file));
  return make("div", { class: "card" }, ...inside);
}

function detail(prompt) {
  return prompt.images.map(image => make("section", {},
    prompt.images.length > 1 ? make("h3", {}, `Image ${image.index}`) : null,
    make("div", { class: "cards" }, ...image.cells.map((cell, place) => card(cell, data.columns[place])))));
}

function row(prompt) {
  const by = change(prompt);
  const groups = Object.keys(prompt.groups);
  const names = ["delta", by > small ? "gained" : by < -small ? "lost" : ""];
  const inside = make("div", { class: "detail" });
  inside.hidden = true;
  const head = make("button", { class: "head", type: "button", "aria-expanded": "false" },
    make("span", { class: names.join(" ").trim() }, shownNumber(by, true)),
    make("span", { class: "text", dir: "auto" }, prompt.text),
    make("span", { class: "id" }, [prompt.id, ...(groups.length === 1 ? groups : [])].join(" · ")));
  function open(wanted) {
    if (wanted && !inside.childElementCount) inside.append(...detail(prompt));
    inside.hidden = !wanted;
    head.setAttribute("aria-expanded", String(wanted));
  }
  head.addEventListener("click", () => {
    open(inside.hidden);
    state.open = inside.hidden ? "" : prompt.id;
    remember();
  });
  const article = make("article", { class: "prompt" }, make("h2", {}, head), strip(prompt), inside);
  if (state.open === prompt.id) open(true);
  return article;
}

function addMore() {
  const next = found.slice(drawn, drawn + STEP);
  at("list").append(...next.map(row));
  drawn += next.length;
  at("end").hidden = drawn >= found.length;
}

function remember() {
  const told = new URLSearchParams();
  for (const [name, one] of Object.entries(state)) if (String(one) !== String(start[name])) told.set(name, String(one));
  try { history.replaceState(null, "", "#" + told); } catch (error) { /* not from a file, in some browsers */ }
}

function draw() {
  const text = state.q.trim().toLowerCase();
  const some = data.prompts.filter(prompt => (!state.group || state.group in prompt.groups) && (!text || searched(prompt).includes(text)));
  for (const button of at("show").children) {
    const name = button.value;
    button.textContent = `${SHOW[name][0]} ${some.filter(SHOW[name][1]).length}`;
    button.setAttribute("aria-pressed", String(state.show === name));
  }
  const place = SORT[state.sort][1];
  found = some.filter(SHOW[state.show][1]).map((prompt, index) => [place(prompt), index, prompt])
    .sort((a, b) => (a[0] === b[0] ? 0 : a[0] - b[0]) || a[1] - b[1]).map(one => one[2]);
  at("count").textContent = `${found.length} of ${data.prompts.length} prompts`;
  document.body.classList.toggle("boxes", state.boxes);
  document.body.classList.toggle("echo-p", state.echo === "p");
  document.body.classList.toggle("echo-b", state.echo === "b");
  at("list").replaceChildren();
  drawn = 0;
  addMore();
  remember();
}

function choice(id, options) {
  at(id).replaceChildren(...options.map(([name, text]) => make("option", { value: name }, text)));
  at(id).addEventListener("change", () => {
    state[id] = typeof state[id] === "number" ? Number(at(id).value) : at(id).value;
    draw();
  });
}

// --- begin
at("controls").addEventListener("submit", event => event.preventDefault());
document.querySelector("h1").textContent = data.title;
at("about").append(...data.about.map(text => make("p", {}, text)));
choice("group", [["", "all"], ...data.groups.map(name => [name, name])]);
choice("sort", Object.entries(SORT).map(([name, one]) => [name, one[0]]));
const columns = data.columns.map((one, place) => [String(place), one.label]);
choice("from", columns);
choice("to", columns);
choice("echo", [["b", "change"], ["p", "log-probability"]]);
at("echo-label").hidden = !data.prompts.some(prompt => prompt.images.some(image => image.cells.some(cell => cell.echo)));
if (!data.pairwise && firstJudged > 0) state.from = firstJudged;
const start = { ...state };
for (const [name, one] of new URLSearchParams(location.hash.slice(1))) {
  if (!(name in state)) continue;
  const read = typeof state[name] === "number" ? Number(one) : typeof state[name] === "boolean" ? one === "true" : one;
  const known = { show: SHOW, sort: SORT, group: { "": 1, ...Object.fromEntries(data.groups.map(group => [group, 1])) } }[name];
  if (known ? Object.hasOwn(known, read) : typeof read !== "number" || data.columns[read] !== undefined) state[name] = read;
}
for (const id of ["group", "sort", "from", "to", "echo"]) at(id).value = String(state[id]);
at("search").value = state.q;
at("boxes").checked = state.boxes;
at("show").append(...Object.keys(SHOW).map(name =>
  make("button", { type: "button", value: name, onclick: () => { state.show = name; draw(); } })));
let waiting;
at("search").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => { state.q = at("search").value; draw(); }, 150);
});
at("boxes").addEventListener("change", () => { state.boxes = at("boxes").checked; document.body.classList.toggle("boxes", state.boxes); remember(); });
at("more").addEventListener("click", () => {
  const next = drawn;
  addMore();
  const head = document.querySelectorAll(".head")[next];
  if (head) head.focus();
});
if ("IntersectionObserver" in window) {
  new IntersectionObserver(seen => { if (seen[0].isIntersecting && drawn < found.length) addMore(); }, { rootMargin: "600px" }).observe(at("end"));
}

function go(by) {
  const heads = [...document.querySelectorAll(".head")];
  const here = heads.indexOf(document.activeElement);
  const next = here < 0 ? 0 : here + by;
  if (next >= heads.length && drawn < found.length) { addMore(); return go(by); }
  if (heads[next]) {
    heads[next].focus();
    heads[next].closest("article").scrollIntoView({ block: "start" });
  }
}

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target.matches("input[type=search], select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === "/") { event.preventDefault(); at("search").focus(); }
  else if (event.key === "j") go(1);
  else if (event.key === "k") go(-1);
  else if (event.key === "b") at("boxes").click();
});
draw();
