"use strict";
// Optional script: makes tables sortable, and shows the numbers of a point or bar on hover, tap and keyboard focus.

const announcement = document.getElementById("announcement");

function valueOf(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  const text = cell.textContent.trim();
  return text.startsWith("—") || text === "" ? null : text;
}

function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one < other ? -1 : one > other ? 1 : 0;
  return String(one).localeCompare(String(other), "en", { numeric: true });
}

function sort(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const head = heads[column];
  const next = { none: "ascending", ascending: "descending", descending: "none" };
  const order = next[head.getAttribute("aria-sort")];
  heads.forEach((each) => each.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", order);
  const rows = [...table.tBodies[0].rows].sort((one, other) => {
    const first = Number(one.dataset.place) - Number(other.dataset.place);
    if (order === "none") return first;
    // float baselines are not ranked, because most are from other machines
    if (one.dataset.aside !== other.dataset.aside) return one.dataset.aside ? 1 : -1;
    const values = [valueOf(one, column), valueOf(other, column)];
    // rows without a value stay at the end in both orders
    if (values.includes(null)) return (values[0] === null) - (values[1] === null) || first;
    return compare(...values) * (order === "ascending" ? 1 : -1) || first;
  });
  table.tBodies[0].append(...rows);
  const name = head.textContent.trim();
  announcement.textContent = order === "none" ? "Rows are in their original order." : `Sorted by ${name}, ${order}.`;
}

for (const table of document.querySelectorAll("table")) {
  if (table.tBodies[0].rows.length < 2) continue;
  [...table.tBodies[0].rows].forEach((row, place) => (row.dataset.place = place));
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, column));
    head.append(button);
    head.setAttribute("aria-sort", "none");
  });
}

const tip = document.getElementById("tip");

function show(mark) {
  tip.textContent = mark.getAttribute("aria-label");
  tip.hidden = false;
  const at = mark.getBoundingClientRect();
  const size = tip.getBoundingClientRect();
  const left = at.left + at.width / 2 - size.width / 2;
  const top = at.top - size.height - 8;
  tip.style.left = `${Math.max(8, Math.min(left, document.documentElement.clientWidth - size.width - 8))}px`;
  tip.style.top = `${top < 8 ? at.bottom + 8 : top}px`;
}

function hide() {
  tip.hidden = true;
}

for (const svg of document.querySelectorAll("figure svg")) {
  const marks = [...svg.querySelectorAll(".mark")];
  if (!marks.length) continue;
  svg.setAttribute("role", "group");
  marks.forEach((mark, place) => {
    const title = mark.querySelector("title");
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", title.textContent);
    mark.setAttribute("tabindex", place ? "-1" : "0"); // one tab stop per figure; arrow keys move between marks
    title.remove(); // otherwise the browser shows a second tooltip
    mark.addEventListener("pointerenter", () => show(mark));
    mark.addEventListener("pointerleave", () => document.activeElement !== mark && hide());
    mark.addEventListener("click", () => mark.focus());
    mark.addEventListener("focus", () => show(mark));
    mark.addEventListener("blur", hide);
    mark.addEventListener("keydown", (event) => {
      const last = marks.length - 1;
      const places = {
        ArrowRight: place + 1,
        ArrowDown: place + 1,
        ArrowLeft: place - 1,
        ArrowUp: place - 1,
        Home: 0,
        End: last,
      };
      if (event.key === "Escape") hide();
      if (!(event.key in places)) return;
      event.preventDefault();
      const other = marks[Math.max(0, Math.min(last, places[event.key]))];
      mark.setAttribute("tabindex", "-1");
      other.setAttribute("tabindex", "0");
      other.focus();
    });
  });
}

addEventListener("scroll", hide, { passive: true });
