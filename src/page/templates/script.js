"use strict";
// The page is whole without this: it sorts tables, and shows the mistakes and the points of one class.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const original = [...body.rows];
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const isNumber = head.classList.contains("n");
      const first = isNumber ? "descending" : "ascending";
      const second = isNumber ? "ascending" : "descending";
      const next = before === first ? second : before === second ? null : first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (next === null) {
        body.append(...original);
        return;
      }
      head.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const text = (row) => row.cells[place].textContent.trim();
      const number = (row) => parseFloat(text(row).replaceAll(",", ""));
      const compare = (one, other) => {
        const [a, b] = [number(one), number(other)];
        if (Number.isNaN(a) && Number.isNaN(b)) return text(one).localeCompare(text(other)) * sign;
        if (Number.isNaN(a)) return 1;
        if (Number.isNaN(b)) return -1;
        return (a - b) * sign;
      };
      body.append(...[...original].sort(compare));
    });
  });
}
for (const place of document.querySelectorAll(".filter")) {
  const names = place.dataset.classes === "" ? [] : place.dataset.classes.split("\n");
  if (names.length < 2) continue;
  const select = document.createElement("select");
  select.setAttribute("aria-label", "Class");
  select.append(new Option("all classes", ""), ...names.map((name) => new Option(name, name)));
  place.append(select);
  const section = place.closest("section");
  select.addEventListener("change", () => {
    const chosen = select.value;
    for (const item of section.querySelectorAll("li[data-classes]")) {
      item.hidden = chosen !== "" && !item.dataset.classes.split("\n").includes(chosen);
    }
    const more = section.querySelector("details.mistakes");
    if (more && chosen !== "") more.open = true;
    for (const point of section.querySelectorAll("circle[data-label]")) {
      point.classList.toggle("chosen", point.dataset.label === chosen);
    }
    section.querySelector("svg.map")?.classList.toggle("filtered", chosen !== "");
  });
}
