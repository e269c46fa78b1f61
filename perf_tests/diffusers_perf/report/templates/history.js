"use strict";
// A chart says the run under the pointer, or the one that the arrow keys chose.
const runs = JSON.parse(document.getElementById("trends").dataset.runs);
for (const plot of document.querySelectorAll(".line-chart .plot")) {
  const points = JSON.parse(plot.dataset.points);
  const cursor = plot.querySelector(".cursor");
  const reading = plot.parentElement.querySelector(".reading");
  let chosen = points.length - 1;
  const choose = (index) => {
    chosen = Math.max(0, Math.min(points.length - 1, index));
    const [left, top, value, run] = points[chosen];
    cursor.style.left = `${left}%`;
    cursor.style.top = `${top}%`;
    cursor.hidden = false;
    reading.textContent = runs[run].join(value);
  };
  plot.addEventListener("pointermove", (event) => {
    const edge = plot.getBoundingClientRect();
    const at = ((event.clientX - edge.left) / edge.width) * 100;
    let nearest = 0;
    points.forEach(([left], index) => {
      if (Math.abs(left - at) < Math.abs(points[nearest][0] - at)) nearest = index;
    });
    choose(nearest);
  });
  plot.addEventListener("focus", () => choose(chosen));
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -points.length, End: points.length }[event.key];
    if (!step) return;
    event.preventDefault();
    choose(chosen + step);
  });
}
