"use strict";
// A click on a header sorts its table: numbers as numbers, everything else as text.
const numberIn = (text) => {
  const found = text.replace(/,/g, "").match(/^\s*-?\d+(\.\d+)?(e-?\d+)?/i);
  return found ? parseFloat(found[0]) : null;
};
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const down = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = [...table.tBodies[0].rows].map((row) => {
        const text = row.cells[column].textContent.trim();
        return { row, text, number: numberIn(text) };
      });
      keyed.sort((one, other) => {
        if (one.number === null || other.number === null) {
          if ((one.number === null) !== (other.number === null)) return one.number === null ? 1 : -1;
          return (down ? -1 : 1) * one.text.localeCompare(other.text, undefined, { numeric: true });
        }
        return (down ? -1 : 1) * (one.number - other.number);
      });
      table.tBodies[0].append(...keyed.map((item) => item.row));
    });
  });
}
// A tooltip at once, also on a tap. Without this script the browser's own, slower tooltip is shown.
const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
document.body.append(tip);
for (const marked of document.querySelectorAll("[data-tip]")) {
  const title = marked.querySelector("title");
  if (title) title.remove();
}
const show = (event) => {
  const marked = event.target.closest ? event.target.closest("[data-tip]") : null;
  tip.hidden = !marked;
  if (!marked) return;
  tip.textContent = marked.dataset.tip;
  const left = Math.min(event.clientX + 12, window.innerWidth - tip.offsetWidth - 8);
  tip.style.left = Math.max(8, left) + "px";
  tip.style.top = Math.max(8, event.clientY - tip.offsetHeight - 12) + "px";
};
document.addEventListener("pointermove", show);
document.addEventListener("pointerdown", show);
// In print, everything is open.
window.addEventListener("beforeprint", () => {
  for (const closed of document.querySelectorAll("details")) closed.open = true;
});
