// Small pictures of numbers over time.

import * as words from "./words.js";

const NAMESPACE = "http://www.w3.org/2000/svg";
export function draw(name, attributes = {}, ...content) {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...content);
  return made;
}

const WIDTH = 300, HEIGHT = 56;

// Fills `place` with the course of [time, number]; `tell` makes words of a number.
export function course(place, points, label, tell) {
  if (points.length < 2) return place.replaceChildren("Its course is drawn from the second minute on.");
  const begin = points[0][0], span = Math.max(1, points.at(-1)[0] - begin);
  const top = Math.max(1e-9, ...points.map(([, number]) => number));
  const x = at => (at - begin) / span * WIDTH, y = number => HEIGHT - 2 - number / top * (HEIGHT - 6);
  const line = points.map(([at, number], index) => `${index ? "L" : "M"}${x(at).toFixed(1)} ${y(number).toFixed(1)}`).join("");
  const low = Math.min(...points.map(([, number]) => number)), high = Math.max(...points.map(([, number]) => number));
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `${label} over the last day: between ${tell(low)} and ${tell(high)}` },
    draw("path", { class: "area", d: `${line}L${WIDTH} ${HEIGHT}L0 ${HEIGHT}Z` }),
    draw("path", { class: "line", d: line }));
  const mark = draw("line", { class: "mark", y1: 0, y2: HEIGHT, visibility: "hidden" });
  svg.append(mark);
  const said = document.createElement("output");
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect();
    const at = begin + (event.clientX - box.left) / box.width * span;
    const [when, number] = points.reduce((best, point) => Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best);
    for (const end of ["x1", "x2"]) mark.setAttribute(end, x(when));
    mark.setAttribute("visibility", "visible");
    said.textContent = `${tell(number)} at ${words.hour(when)}`;
  });
  svg.addEventListener("pointerleave", () => {
    mark.setAttribute("visibility", "hidden");
    said.textContent = "";
  });
  place.replaceChildren(svg, said);
}

// How two latencies compare: a bar for each.
export function bars(place, values) {
  const top = Math.max(...values.map(([, number]) => number || 0), 1);
  place.replaceChildren(...values.map(([name, number]) => {
    const row = document.createElement("p");
    row.className = "bar-row";
    row.append(name, draw("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
      draw("rect", { class: "track", width: 100, height: 8, rx: 2 }),
      draw("rect", { class: "fill", width: (number || 0) / top * 100, height: 8, rx: 2 })), words.took(number));
    return row;
  }));
}

const DAY = 24 * 3600 * 1000;

// The phases of a workspace over time, from its journal, the newest line first.
export function timeline(place, journal) {
  const end = words.now();
  const lines = journal.map(line => ({ ...line, time: Date.parse(line.at) })).reverse();
  if (!lines.length) return place.replaceChildren("Nothing is known yet.");
  const begin = Math.max(lines[0].time, end - DAY), span = Math.max(1000, end - begin);
  const svg = draw("svg", { viewBox: "0 0 1000 34", preserveAspectRatio: "none", role: "img" });
  const spent = new Map();
  lines.forEach((line, index) => {
    const from = Math.max(begin, line.time), to = lines[index + 1]?.time ?? end;
    if (to < begin) return;
    const kind = line.phase === "frozen" ? line.tier || "stopped" : line.phase;
    spent.set(kind, (spent.get(kind) || 0) + to - from);
    const x = (from - begin) / span * 1000, width = Math.max((to - from) / span * 1000, 1.5);
    svg.append(draw("rect", { class: `p-${kind}`, x, width, y: 0, height: 34 },
      draw("title", {}, `${kind}, ${words.spoken(to - from)}: ${line.reason}`)));
  });
  const legend = [...spent].filter(([, time]) => time >= 1000 || spent.size === 1).sort((one, other) => other[1] - one[1]);
  svg.setAttribute("aria-label", `Phases since ${words.moment(begin)}: ` +
    legend.map(([kind, time]) => `${kind} for ${words.spoken(time)}`).join(", "));
  const list = document.createElement("ul");
  list.className = "legend";
  for (const [kind, time] of legend) {
    const item = document.createElement("li");
    const swatch = document.createElement("i");
    swatch.className = `p-${kind}`;
    item.append(swatch, `${kind} `, Object.assign(document.createElement("b"), { textContent: words.spoken(time) }));
    list.append(item);
  }
  const ends = document.createElement("p");
  ends.className = "ends";
  ends.append(Object.assign(document.createElement("span"), { textContent: words.moment(begin) }),
    Object.assign(document.createElement("span"), { textContent: "now" }));
  place.replaceChildren(svg, ends, list);
}

// How long its wakes took, one bar for each, the oldest first.
export function wakes(place, journal) {
  const all = journal.filter(line => line.phase === "running" && line.took_ms != null).reverse();
  if (!all.length) return place.replaceChildren("It has not been woken yet.");
  const top = Math.max(...all.map(line => line.took_ms), 1), width = 1000 / Math.max(all.length, 24);
  const sorted = all.map(line => line.took_ms).sort((one, other) => one - other);
  const middle = sorted[Math.floor((sorted.length - 1) / 2)];
  const svg = draw("svg", { viewBox: "0 0 1000 60", preserveAspectRatio: "none", role: "img",
    "aria-label": `${words.many(all.length, "wake")}: ${words.took(middle)} in the middle, ${words.took(top)} at most` });
  all.forEach((line, index) => {
    const height = Math.max(2, line.took_ms / top * 58);
    svg.append(draw("rect", { class: "fill", x: index * width + width * 0.15, width: width * 0.7, y: 60 - height, height, rx: 2 },
      draw("title", {}, `${words.took(line.took_ms)} at ${words.moment(Date.parse(line.at))}`)));
  });
  const said = document.createElement("p");
  said.className = "ends";
  said.append(Object.assign(document.createElement("span"), { textContent: `${words.many(all.length, "wake")}, the last took ${words.took(all.at(-1).took_ms)}` }),
    Object.assign(document.createElement("span"), { textContent: `middle ${words.took(middle)}, most ${words.took(top)}` }));
  place.replaceChildren(svg, said);
}
