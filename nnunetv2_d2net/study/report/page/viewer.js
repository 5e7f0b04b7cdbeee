"use strict";
// The viewer's controls and panels. Pictures and label maps are decoded when a case is chosen, not before.
(() => {
  const root = document.getElementById("viewer");
  const content = JSON.parse(document.getElementById("content")?.textContent ?? "null");
  if (!content?.cases.length) return;

  const MAX_HEIGHT = 0.62; // of the window: a picture and its slider fit on the screen together
  const $ = (id) => document.getElementById(id);
  const make = (tag, text, parent) => {
    const element = document.createElement(tag);
    element.textContent = text;
    parent?.append(element);
    return element;
  };
  const state = { case: null, decoded: null, subset: content.subsets.length - 1, turn: 0 };

  const panel = (parent, title, detail) => {
    const figure = make("figure", "", parent);
    const canvas = make("canvas", "", figure);
    const caption = make("figcaption", "", figure);
    make("strong", title, caption);
    make("span", detail, caption);
    const place = make("span", "", caption); // on paper, where nothing else says what is shown
    place.className = "place";
    canvas.setAttribute("role", "img");
    return { figure, canvas, place };
  };

  const fit = (canvas) => {
    const { width, height, spacing } = state.case;
    const aspect = (height * spacing[0]) / (width * spacing[1]);
    const room = canvas.parentElement.clientWidth;
    const shown = Math.max(40, Math.min(room, (window.innerHeight * MAX_HEIGHT) / aspect));
    canvas.style.width = `${shown}px`;
    canvas.style.height = `${shown * aspect}px`;
    canvas.width = Math.round(shown * devicePixelRatio);
    canvas.height = Math.round(shown * aspect * devicePixelRatio);
    return canvas.getContext("2d");
  };

  const dice = (arm) => content.regions.map((region, index) => {
    const value = state.case.dice[arm][state.subset][index];
    return `${region.name} ${value === null ? "-" : value.toFixed(3)}`;
  }).join(", ");

  const shownArms = () => [...$("arms").querySelectorAll("input")].map((box) => box.checked);

  const regions = Drawing.lookups(content.regions, content.nLabels);
  const colors = content.regions.map((region) => region.color);
  const look = () => ({
    regions,
    colors,
    shown: [...$("regions").querySelectorAll("input")].map((box) => box.checked),
    areas: $("style").value === "area",
  });
  const light = () => ({
    brightness: 1 + Number($("brightness").value) / 100,
    contrast: 1 + Number($("contrast").value) / 100,
  });

  let panels = [];
  const layOut = () => {
    const available = content.subsets[state.subset].available;
    const widest = Math.max(content.modalities.length, 1 + shownArms().filter(Boolean).length);
    const fitting = Math.max(2, Math.floor($("panels").clientWidth / 190));
    $("panels").style.setProperty("--columns", Math.min(widest, fitting));
    $("modalities").replaceChildren();
    $("segmentations").replaceChildren();
    panels = content.modalities.map((name, index) => {
      const image = state.decoded.images[index];
      const words = !image ? "was not acquired" : available[index] ? "" : "missing in this subset";
      const one = panel($("modalities"), name, words);
      one.figure.classList.toggle("missing", Boolean(words));
      one.canvas.setAttribute("aria-label", `${name} ${words}`);
      return { ...one, draw: (context, slice) => {
        Drawing.drawSlice(context, state.case, image, slice, light());
        if (words) Drawing.cross(context);
        Drawing.letters(context, state.case.sides);
      } };
    });
    const behind = state.decoded.images[Number($("background").value)];
    const segmentation = (title, detail, labels, compare) => {
      const one = panel($("segmentations"), title, detail);
      one.canvas.setAttribute("aria-label", `${title}: ${detail}`);
      panels.push({ ...one, draw: (context, slice) => {
        Drawing.drawSlice(context, state.case, behind, slice, light());
        if (labels) Drawing.drawLabels(context, state.case, labels, slice, look());
        if (compare) Drawing.drawReference(context, state.case, state.decoded.reference, slice, look());
        Drawing.letters(context, state.case.sides);
      } });
    };
    segmentation("reference", "", state.decoded.reference, false);
    shownArms().forEach((shown, arm) => {
      if (!shown) return;
      const labels = state.decoded.prediction(arm, state.subset);
      const detail = labels ? `Dice: ${dice(arm)}` : "no prediction with this subset";
      segmentation(content.arms[arm], detail, labels, $("compare").checked && labels);
    });
    draw();
  };

  const draw = () => {
    const one = state.case, slice = Number($("slice").value);
    const place = `case ${one.name}, available: ${content.subsets[state.subset].name}, slice ${one.slices[slice]} of ${one.ofSlices}`;
    for (const each of panels) {
      each.draw(fit(each.canvas), slice);
      each.place.textContent = place;
    }
    $("where").textContent = `${one.slices[slice]} of ${one.ofSlices}`;
    $("slice").setAttribute("aria-valuetext", `slice ${one.slices[slice]} of ${one.ofSlices}`);
    root.dataset.shown = `${one.name}|${content.subsets[state.subset].name}|${slice}`;
  };

  const mean = (values) => {
    const known = values.filter((value) => value !== null);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : NaN;
  };
  const caseDice = (one) => mean(one.dice[Number($("judge").value)][state.subset]);

  const listCases = () => {
    const order = $("order").value, chosen = $("case").value;
    const sign = order === "best" ? -1 : 1;
    const listed = content.cases.map((one, index) => ({ index, name: one.name, dice: caseDice(one) }));
    listed.sort((a, b) => {
      if (order !== "name" && a.dice !== b.dice) {
        if (Number.isNaN(a.dice) || Number.isNaN(b.dice)) return Number.isNaN(a.dice) - Number.isNaN(b.dice);
        return sign * (a.dice - b.dice);
      }
      return a.name < b.name ? -1 : 1;
    });
    $("case").replaceChildren(...listed.map((one) => {
      const words = Number.isNaN(one.dice) ? "not predicted" : one.dice.toFixed(3);
      return new Option(`${one.name} (${words})`, one.index);
    }));
    if (chosen !== "") $("case").value = chosen;
  };

  const listBackgrounds = () => {
    const available = content.subsets[state.subset].available;
    const options = content.modalities.map((name, index) => {
      const option = new Option(available[index] ? name : `${name} (missing in this subset)`, index);
      option.disabled = !state.decoded.images[index];
      return option;
    });
    const before = Number($("background").value || -1);
    $("background").replaceChildren(...options);
    const usable = options.map((option, index) => !option.disabled && available[index]);
    const keep = usable[before] ? before : usable.indexOf(true);
    $("background").value = keep >= 0 ? keep : options.findIndex((option) => !option.disabled);
  };

  const tell = (text) => {
    $("message").textContent = text;
    $("message").hidden = !text;
  };

  const chooseCase = async () => {
    const turn = ++state.turn, one = content.cases[Number($("case").value)];
    try {
      const decoded = await Decoding.decodeCase(one, content.nLabels);
      if (turn !== state.turn) return; // another case was chosen meanwhile
      Object.assign(state, { case: one, decoded });
      tell("");
    } catch (error) {
      tell(`This case cannot be shown: ${error.message}`);
      return;
    }
    $("slice").max = one.slices.length - 1;
    $("slice").value = one.start;
    listBackgrounds();
    const plane = one.plane || "plane as stored";
    const step = one.slices.length > 1 ? one.slices[1] - one.slices[0] : 1;
    const thinned = step > 1 ? ` Every ${step}. slice is here.` : "";
    const sides = one.sides
      ? ` L and R are the patient's left and right${one.sides[0] === "R" ? ": right is on the left of the picture" : ""}.`
      : " The files do not say which side is which.";
    $("placing").textContent = `${plane[0].toUpperCase()}${plane.slice(1)}, pixels of ` +
      `${one.spacing[1]} x ${one.spacing[0]} mm, slices ${one.thickness} mm apart.${thinned}${sides}`;
    layOut();
  };

  const checkboxes = (parent, names, swatches) => names.forEach((name, index) => {
    const label = make("label", "", parent);
    const box = make("input", "", label);
    Object.assign(box, { type: "checkbox", checked: true });
    if (swatches) make("span", "", label).style.cssText = `background: ${swatches[index]}`;
    if (swatches) label.lastChild.className = "swatch";
    label.append(` ${name}`);
  });

  content.subsets.forEach((subset, index) => {
    const known = subset.name.split("+").every((name) => content.modalities.includes(name));
    const dots = known ? `${subset.available.map((there) => (there ? "●" : "○")).join("")} ` : "";
    $("subset").append(new Option(`${dots}${subset.name}`, index));
  });
  content.arms.forEach((arm, index) => $("judge").append(new Option(arm, index)));
  $("judge").value = content.focus;
  $("subset").value = state.subset;
  $("order").value = "worst"; // a reloaded page would keep these, and its lists would not fit
  checkboxes($("regions"), content.regions.map((region) => region.name), colors);
  checkboxes($("arms"), content.arms, null);

  $("order").addEventListener("change", () => { $("case").replaceChildren(); listCases(); chooseCase(); });
  $("judge").addEventListener("change", listCases);
  $("case").addEventListener("change", chooseCase);
  $("subset").addEventListener("change", () => {
    state.subset = Number($("subset").value);
    listCases();
    if (state.case) { listBackgrounds(); layOut(); }
  });
  for (const id of ["background", "style", "compare", "regions", "arms"]) {
    $(id).addEventListener("change", () => { if (state.case) layOut(); });
  }
  for (const id of ["slice", "brightness", "contrast"]) {
    $(id).addEventListener("input", () => { if (state.case) draw(); });
  }
  $("panels").addEventListener("keydown", (event) => {
    const step = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 }[event.key];
    if (!step || !state.case) return;
    $("slice").value = Number($("slice").value) + step;
    draw();
    event.preventDefault();
  });
  let waiting = 0;
  window.addEventListener("resize", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => { if (state.case) layOut(); });
  });
  listCases();
  chooseCase();
})();
