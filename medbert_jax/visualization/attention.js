const find = (id) => document.getElementById(id);
const make = (kind, of = {}, ...inside) => { const one = Object.assign(document.createElement(kind), of); one.append(...inside); return one; };
const { codes, visits, layers, heads, relations, models } = JSON.parse(find("data").textContent);
const names = Object.keys(relations), count = codes.length, steps = [0, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5];
const ROW = 20, LEVELS = 12, LINES_AT_ONCE = 4000, ROWS_OF_A_PIECE = 44, ROWS_UNDER_THE_HEADER = 22;
// Lines over one pixel of the screen wide take ten times as long: there are such only where they are few.
const FEW_LINES = 2000, FEW_ROWS = 150;
const palette = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#7f5fc4", "#56a0d3", "#8c6d31"];
const colour = (head) => palette[head] ?? `hsl(${(head * 137) % 360} 60% 48%)`;
const colours = ["#80868b", "#0072b2", "#e69f00", "#56b4e9", "#009e73"];
const state = { layer: 0, heads: new Set([...Array(heads).keys()]), least: 0, first: 1, last: visits.length, focus: null };
const sections = [...document.querySelectorAll(".model")];
let rows = [], place = [];

// Weights: one block of little-endian float32 for each model and layer, (heads, reading, read).
const decoded = new Map();
const weights = (model, layer) => {
  const id = `weights-${model}-${layer}`;
  if (!decoded.has(id)) {
    const text = atob(find(id).textContent), bytes = new Uint8Array(text.length);
    for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
    decoded.set(id, new Float32Array(bytes.buffer));
  }
  return decoded.get(id);
};
const weight = (model, layer, head, reading, read) => weights(model, layer)[(head * count + reading) * count + read];

// Lines of a band of rows, in batches of one head and one strength; those of the strongest come first.
const kept = new Uint32Array(heads * count * count), keys = new Uint16Array(kept.length);
const batches = (model, top, height) => {
  const values = weights(model, state.layer), shown = rows.filter((row) => row >= 0), { focus, least } = state;
  const reading = focus?.side === "reading" ? [focus.code] : shown, read = focus?.side === "read" ? [focus.code] : shown;
  const middle = place.map((row) => (row + .5) * ROW - top), sizes = new Uint32Array(LEVELS * heads);
  let lines = 0, inside = 0;
  for (const head of state.heads) for (const from of reading) {
    const y = middle[from], start = (head * count + from) * count;
    for (const to of read) {
      const value = values[start + to];
      if (value < least || value === 0) continue;
      lines++;
      const other = middle[to];
      if ((y < 0 && other < 0) || (y > height && other > height)) continue;
      keys[inside] = Math.min(LEVELS - 1, Math.floor(Math.sqrt(value) * LEVELS)) * heads + head;
      sizes[keys[inside]]++;
      kept[inside++] = start + to;
    }
  }
  const ends = [...sizes].map((size) => new Float32Array(2 * size)), filled = new Uint32Array(sizes.length);
  for (let number = 0; number < inside; number++) {
    const key = keys[number], pair = kept[number] % (count * count);
    ends[key][filled[key]++] = middle[Math.floor(pair / count)];
    ends[key][filled[key]++] = middle[pair % count];
  }
  const sorted = [...ends.entries()].filter(([, of]) => of.length).reverse();
  return { lines, possible: state.heads.size * reading.length * read.length, sorted };
};
const stroke = (context, width, key, ends, thick) => {
  const level = Math.floor(key / heads);
  context.strokeStyle = colour(key % heads);
  context.globalAlpha = (level + .5) / LEVELS;
  context.lineWidth = thick ? .8 + 1.6 * ((level + .5) / LEVELS) ** 2 : 1;
  context.beginPath();
  for (let at = 0; at < ends.length; at += 2) { context.moveTo(0, ends[at]); context.lineTo(width, ends[at + 1]); }
  context.stroke();
};
// The strongest lines at once, weaker ones under them in later frames, so that the page answers however many there are.
let frames = 0;
const drawBand = (model, canvas, top, height, width, whole = false) => {
  const scale = rows.length <= FEW_ROWS ? Math.min(devicePixelRatio, 2) : 1, context = canvas.getContext("2d");
  canvas.width = width * scale; canvas.height = height * scale;
  context.scale(scale, scale);
  // On paper a canvas is no picture but its strokes, and what goes under others would go under the paper.
  if (!whole) context.globalCompositeOperation = "destination-over";
  const { lines, possible, sorted } = batches(model, top, height), mine = frames, thick = lines <= FEW_LINES;
  const pieces = sorted.flatMap(([key, ends]) => {
    const cut = [];
    for (let at = 0; at < ends.length; at += LINES_AT_ONCE) cut.push([key, ends.subarray(at, at + LINES_AT_ONCE)]);
    return cut;
  });
  if (whole) pieces.reverse();
  const go = () => {
    let done = 0;
    while (pieces.length && (whole || done < LINES_AT_ONCE)) { const [key, ends] = pieces.shift(); stroke(context, width, key, ends, thick); done += ends.length / 2; }
    if (pieces.length) requestAnimationFrame(() => { if (mine === frames) go(); });
  };
  go();
  return { lines, possible };
};
const draw = () => {
  frames++;
  sections.forEach((section, model) => {
    const between = section.querySelector(".between"), box = between.getBoundingClientRect(), whole = rows.length * ROW;
    between.style.height = `${whole}px`;
    const height = Math.min(whole, innerHeight + 400), top = Math.max(0, Math.min(whole - height, -box.top - 200));
    const canvas = section.querySelector("canvas.lines");
    canvas.style.top = `${top}px`; canvas.style.height = `${height}px`;
    canvas.dataset.top = top;
    const { lines, possible } = drawBand(model, canvas, top, height, Math.max(40, box.width));
    section.querySelector(".drawn").value = `Layer ${state.layer + 1}: ${lines.toLocaleString("en")} of ${possible.toLocaleString("en")} weights are drawn.`;
  });
  say();
};

// What a code reads, or who reads it: the mean over the chosen heads, beside the other side's codes and in words.
const say = () => {
  const { focus } = state;
  sections.forEach((section, model) => {
    for (const one of section.querySelectorAll(".view li[data-code]")) { one.classList.remove("chosen"); one.style.removeProperty("--share"); }
    const reads = section.querySelector(".reads");
    reads.value = "";
    if (!focus || !state.heads.size) return;
    const reading = focus.side === "reading", values = weights(model, state.layer);
    const found = rows.filter((row) => row >= 0).map((code) => {
      let sum = 0;
      for (const head of state.heads) sum += values[(head * count + (reading ? focus.code : code)) * count + (reading ? code : focus.code)];
      return [code, sum / state.heads.size];
    });
    const most = Math.max(...found.map(([, value]) => value));
    const of = (side) => section.querySelector(`.view .${side}`);
    of(focus.side).querySelector(`[data-code="${focus.code}"]`)?.classList.add("chosen");
    const others = new Map([...of(reading ? "read" : "reading").querySelectorAll("[data-code]")].map((one) => [Number(one.dataset.code), one]));
    for (const [code, value] of found) others.get(code).style.setProperty("--share", most ? value / most : 0);
    const words = found.sort(([, one], [, other]) => other - one).slice(0, 4).map(([code, value]) => `${codes[code].code} (visit ${codes[code].visit}) ${value.toFixed(3)}`);
    const here = codes[focus.code];
    reads.value = `${here.code} ${here.title} (visit ${here.visit}) ${reading ? "reads" : "is read by"} ${words.join(", ")}${state.heads.size > 1 ? "; mean of the chosen heads" : ""}.`;
  });
};
const isolate = (element) => {
  const one = element?.closest?.(".view li[data-code]");
  const focus = one ? { side: one.parentElement.classList.contains("read") ? "read" : "reading", code: Number(one.dataset.code) } : null;
  if (focus?.side === state.focus?.side && focus?.code === state.focus?.code) return;
  state.focus = focus;
  draw();
};

// Rows: a separator before the codes of each visit that is shown; below 0: visit.
const item = (row) => {
  if (row < 0) return make("li", { className: "sep", role: "presentation" }, make("b", {}, "SEP"), visits[-row - 1]);
  const { code, title, visit } = codes[row], local = code.slice(code.indexOf("/") + 1);
  const one = make("li", { role: "option", tabIndex: -1, title: `${code} ${title}, visit ${visit}` }, make("code", {}, local), make("span", {}, ` ${title}`));
  one.dataset.code = row;
  return one;
};
const lay = () => {
  rows = []; place = [];
  codes.forEach(({ visit }, code) => {
    if (visit < state.first || visit > state.last) return;
    if (visit !== codes[code - 1]?.visit) rows.push(-visit);
    place[code] = rows.length;
    rows.push(code);
  });
  state.focus = null;
  for (const side of document.querySelectorAll(".view .side")) {
    side.replaceChildren(...rows.map(item));
    const first = side.querySelector("[data-code]");
    if (first) first.tabIndex = 0;
  }
};

const show = () => {
  find("layer").value = state.layer; find("first").value = state.first; find("last").value = state.last;
  find("threshold").value = steps.indexOf(state.least); find("least").value = state.least;
  find("threshold").setAttribute("aria-valuetext", `${state.least}`);
  for (const box of document.querySelectorAll("[data-head]:not(button)")) box.checked = state.heads.has(Number(box.dataset.head));
  for (const button of document.querySelectorAll(".gallery button")) {
    button.setAttribute("aria-pressed", Number(button.dataset.layer) === state.layer && state.heads.has(Number(button.dataset.head)));
  }
  draw();
  panels();
};
find("controls").addEventListener("input", () => {
  state.layer = Number(find("layer").value);
  state.heads = new Set([...document.querySelectorAll("[data-head]:not(button)")].filter((box) => box.checked).map((box) => Number(box.dataset.head)));
  state.least = steps[Number(find("threshold").value)];
  const [first, last] = [find("first"), find("last")].map((one) => Number(one.value)).sort((one, other) => one - other);
  const moved = first !== state.first || last !== state.last;
  Object.assign(state, { first, last });
  if (moved) lay();
  show();
});
find("controls").addEventListener("submit", (event) => event.preventDefault());
find("all").addEventListener("click", () => { state.heads = new Set([...Array(heads).keys()]); show(); });
document.addEventListener("mouseover", (event) => isolate(event.target.closest(".view li[data-code]") ?? document.activeElement));
document.addEventListener("focusin", (event) => isolate(event.target));
document.addEventListener("keydown", (event) => {
  const here = event.target.closest(".view li[data-code]");
  if (!here) return;
  const all = [...here.parentElement.querySelectorAll("[data-code]")], at = all.indexOf(here);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1, PageDown: Math.min(at + 20, all.length - 1), PageUp: Math.max(at - 20, 0) }[event.key];
  if (event.key === "Escape") { here.blur(); isolate(null); }
  if (to === undefined) return;
  event.preventDefault();
  if (!all[to]) return;
  here.tabIndex = -1; all[to].tabIndex = 0; all[to].focus();
});
let moving = false;
const follow = () => {
  if (moving) return;
  moving = true;
  requestAnimationFrame(() => {
    moving = false;
    const out = sections.some((section) => {
      const canvas = section.querySelector("canvas.lines").getBoundingClientRect(), box = section.querySelector(".between").getBoundingClientRect();
      return (canvas.top > 0 && canvas.top > box.top + 1) || (canvas.bottom < innerHeight && canvas.bottom < box.bottom - 1);
    });
    if (out) draw();
  });
};
addEventListener("scroll", follow);
addEventListener("resize", draw);

// Printed: pieces that fit a page, each with its band of the lines.
addEventListener("beforeprint", () => sections.forEach((section, model) => {
  const pieces = [];
  for (let at = 0, end; at < rows.length; at = end) {
    end = at + (at || model ? ROWS_OF_A_PIECE : ROWS_UNDER_THE_HEADER);
    const here = rows.slice(at, end), canvas = make("canvas");
    const list = (side) => make("ol", { className: `side ${side}` }, ...here.map(item));
    drawBand(model, canvas, at * ROW, here.length * ROW, 150, true);
    pieces.push(make("div", { className: "piece" }, list("reading"), make("div", {}, canvas), list("read")));
  }
  section.querySelector(".printed").replaceChildren(...pieces);
}));
addEventListener("afterprint", () => { for (const one of document.querySelectorAll(".printed")) one.replaceChildren(); });

for (const box of document.querySelectorAll(".head input")) box.nextElementSibling.style.setProperty("--colour", colour(Number(box.dataset.head)));
find("threshold").max = steps.length - 1;
// Of a long record the largest weights first; where all are nearly alike none would be left, so then all of them.
const linesFrom = (least) => weights(0, 0).reduce((lines, value) => lines + (value >= least), 0);
let begin = steps.findIndex((least) => linesFrom(least) <= Math.max(600, Math.min(20 * count, 5000)));
if (begin < 0) begin = steps.length - 1;
if (begin > 0 && !linesFrom(steps[begin])) begin--;
state.least = steps[begin];
lay();
gallery();
show();
