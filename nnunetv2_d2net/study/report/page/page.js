"use strict";
// Choosing among tables, and a closer look at their cells by pointer, tap or keyboard.
(() => {
  for (const choice of document.querySelectorAll("[data-choice]")) {
    const show = () => {
      const chosen = choice.querySelector("input:checked").value;
      for (const group of document.querySelectorAll(`[data-group="${choice.dataset.choice}"]`)) {
        group.hidden = group.dataset.name !== chosen;
      }
    };
    choice.addEventListener("change", show);
    show(); // a reloaded page keeps the choice of before
  }

  const tip = document.getElementById("tip");
  const hide = () => { tip.hidden = true; };
  const explain = (cell) => {
    tip.textContent = cell.dataset.tip;
    tip.hidden = false;
    const place = cell.getBoundingClientRect();
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(8, Math.min(place.left, room))}px`;
    const below = place.bottom + 6;
    const fits = below + tip.offsetHeight < document.documentElement.clientHeight;
    tip.style.top = `${fits ? below : place.top - tip.offsetHeight - 6}px`;
  };

  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  for (const table of document.querySelectorAll("[data-cells]")) {
    const rows = [...table.tBodies[0].rows].map((row) => [...row.querySelectorAll("td.cell")]);
    const first = table.querySelector("[data-tip]");
    if (first) first.tabIndex = 0; // one stop of the Tab key; the arrow keys move on from it
    const cellOf = (event) => event.target.closest("[data-tip]");
    table.addEventListener("pointerover", (event) => { if (cellOf(event)) explain(cellOf(event)); });
    table.addEventListener("pointerleave", hide);
    table.addEventListener("click", (event) => { if (cellOf(event)) explain(cellOf(event)); });
    table.addEventListener("focusin", (event) => { if (cellOf(event)) explain(cellOf(event)); });
    table.addEventListener("focusout", hide);
    table.addEventListener("keydown", (event) => {
      if (event.key === "Escape") hide();
      const move = moves[event.key];
      const row = rows.findIndex((cells) => cells.includes(event.target));
      if (!move || row < 0) return;
      const next = rows[row + move[0]]?.[rows[row].indexOf(event.target) + move[1]];
      if (next?.dataset.tip) {
        event.target.tabIndex = -1;
        next.tabIndex = 0;
        next.focus({ preventScroll: false });
      }
      event.preventDefault();
    });
  }
  const follow = () => {
    const focused = document.activeElement?.closest("[data-tip]");
    if (focused && !tip.hidden) explain(focused); else hide();
  };
  document.addEventListener("scroll", follow, { passive: true, capture: true });

  // A table that is wider than the page says so, and the keyboard reaches it.
  for (const box of document.querySelectorAll(".scroll")) {
    const look = () => {
      const wide = box.scrollWidth > box.clientWidth + 1;
      box.classList.toggle("wide", wide);
      box.classList.toggle("end", box.scrollLeft + box.clientWidth >= box.scrollWidth - 1);
      for (const [name, value] of [["tabindex", "0"], ["role", "region"]]) {
        if (wide) box.setAttribute(name, value); else box.removeAttribute(name);
      }
      if (wide) box.setAttribute("aria-label", box.querySelector("caption")?.textContent ?? "table");
      else box.removeAttribute("aria-label");
    };
    new ResizeObserver(look).observe(box);
    box.addEventListener("scroll", look, { passive: true });
  }

  // On paper nothing can be opened.
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const one of closed) one.open = true;
  });
  window.addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
})();
