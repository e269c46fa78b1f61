"use strict";
// Images that are embedded once and shown in several places.
for (const image of document.querySelectorAll("img[data-of]")) {
  const source = document.getElementById(image.dataset.of);
  if (source) image.src = source.src;
}

// Tables
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => {
        const cell = row.cells[column];
        const number = parseFloat(cell.dataset.v);
        if (!Number.isNaN(number)) return number;
        return cell.dataset.v === "" || cell.textContent.trim() === "–" ? null : cell.textContent.trim();
      };
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [value(row), row]);
      rows.sort(([a], [b]) => {
        // Empty cells stay last.
        if (a === null || b === null) return (a === null) - (b === null);
        const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
        return up ? order : -order;
      });
      body.append(...rows.map(([, row]) => row));
    });
  });
}

// Images: slide and blink in place
const PERIOD_MS = 700;
const cases = [...document.querySelectorAll(".case")].filter((one) => one.querySelector("img.own"));
for (const one of cases) {
  const slide = one.querySelector(".slide");
  const stack = one.querySelector(".stack");
  slide?.addEventListener("input", () => {
    stack.style.setProperty("--at", `${slide.value}%`);
    stack.style.setProperty("--divider", slide.value > 0 && slide.value < 100 ? 1 : 0);
  });
  const blink = one.querySelector(".blink");
  let timer;
  blink?.addEventListener("click", () => {
    const on = blink.getAttribute("aria-pressed") !== "true";
    blink.setAttribute("aria-pressed", String(on));
    one.classList.toggle("blinking", on);
    clearInterval(timer);
    if (on) timer = setInterval(() => one.classList.toggle("off"), PERIOD_MS);
  });
  for (const button of one.querySelectorAll(".open")) {
    button.addEventListener("click", () => view(cases.indexOf(one), button.dataset.mode));
  }
}

// The viewer: one case at full size
const viewer = document.getElementById("viewer");
const stage = document.getElementById("viewer-stage");
const slide = document.getElementById("viewer-slide");
const range = slide.querySelector("input");
const modes = [...viewer.querySelectorAll("input[name=mode]")];
let shown = 0;
let blinking;

function view(index, mode) {
  shown = (index + cases.length) % cases.length;
  const one = cases[shown];
  const has = { side: one.querySelector("img.reference"), difference: one.querySelector("img.difference") };
  for (const choice of modes) choice.disabled = choice.value === "difference" ? !has.difference : !has.side;
  const wanted = modes.find((choice) => choice.value === mode && !choice.disabled) || modes.find((choice) => !choice.disabled);
  for (const choice of modes) choice.checked = choice === wanted;
  document.getElementById("viewer-name").textContent = one.dataset.name;
  draw(wanted ? wanted.value : "single");
  if (!viewer.open) viewer.showModal();
}

function image(source, className) {
  const image = document.createElement("img");
  image.src = source.src;
  image.alt = source.alt;
  image.className = className || "";
  return image;
}

function framed(images, caption) {
  const figure = document.createElement("figure");
  const frame = document.createElement("div");
  const box = document.createElement("div");
  const text = document.createElement("figcaption");
  frame.className = "frame";
  box.className = "box" + (images.some((image) => image.naturalWidth <= 128) ? " exact" : "");
  box.style.setProperty("--ratio", images[0].naturalWidth / images[0].naturalHeight || 1);
  box.append(...images);
  frame.append(box);
  text.textContent = caption;
  figure.append(frame, text);
  return figure;
}

function draw(mode) {
  clearInterval(blinking);
  const one = cases[shown];
  const own = one.querySelector("img.own");
  const reference = one.querySelector("img.reference");
  const difference = one.querySelector("img.difference");
  const [name, referenceName] = [one.dataset.ownName, one.dataset.referenceName];
  stage.className = mode;
  slide.hidden = mode !== "slider";
  slide.firstElementChild.textContent = referenceName;
  slide.lastElementChild.textContent = name;
  if (mode === "side") {
    stage.replaceChildren(framed([image(reference)], referenceName), framed([image(own)], name));
  } else if (mode === "difference") {
    stage.replaceChildren(framed([image(difference)], `difference ×${one.dataset.amplified}`));
  } else if (mode === "slider") {
    const figure = framed([image(own), image(reference, "over")], `left ${referenceName}, right ${name}`);
    const box = figure.querySelector(".box");
    box.classList.add("divided");
    const drag = (event) => {
      if (!event.buttons) return;
      const edge = box.getBoundingClientRect();
      range.value = Math.max(0, Math.min(100, ((event.clientX - edge.left) / edge.width) * 100));
      divide();
    };
    box.addEventListener("pointerdown", (event) => { box.setPointerCapture(event.pointerId); drag(event); });
    box.addEventListener("pointermove", drag);
    stage.replaceChildren(figure);
    divide();
  } else if (mode === "blink") {
    const over = image(reference);
    const figure = framed([image(own), over], name);
    stage.replaceChildren(figure);
    blinking = setInterval(() => {
      over.hidden = !over.hidden;
      figure.querySelector("figcaption").textContent = over.hidden ? name : referenceName;
    }, PERIOD_MS);
  } else {
    stage.replaceChildren(framed([image(own)], name));
  }
}

function divide() {
  stage.style.setProperty("--at", `${range.value}%`);
}

range.addEventListener("input", divide);
for (const choice of modes) choice.addEventListener("change", () => draw(choice.value));
const mode = () => modes.find((choice) => choice.checked)?.value;
document.getElementById("viewer-previous").addEventListener("click", () => view(shown - 1, mode()));
document.getElementById("viewer-next").addEventListener("click", () => view(shown + 1, mode()));
document.getElementById("viewer-close").addEventListener("click", () => viewer.close());
viewer.addEventListener("close", () => clearInterval(blinking));

// Paper shows everything unfolded.
const folded = () => [...document.querySelectorAll("details:not([open])")];
let opened = [];
addEventListener("beforeprint", () => { opened = folded(); for (const one of opened) one.open = true; });
addEventListener("afterprint", () => { for (const one of opened) one.open = false; });
