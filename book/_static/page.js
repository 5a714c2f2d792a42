// A page is printed in its light colours, whatever the screen shows; and what scrolls sideways shows it, and can be
// reached by keys.
const root = document.documentElement;
let shown;
window.addEventListener("beforeprint", () => {
  shown = root.dataset.theme;
  root.dataset.theme = "light";
});
window.addEventListener("afterprint", () => {
  root.dataset.theme = shown;
});

for (const image of document.querySelectorAll(".bd-article figure > img")) {
  const box = document.createElement("div");
  box.className = "tvae-scroll";
  image.replaceWith(box);
  box.append(image);
}
const BOXES = "mjx-container, span.math, pre, .output, .tvae-scroll, .pst-scrollable-table-container";
const boxes = () => document.querySelectorAll(`.bd-article :is(${BOXES})`);
const hidden = (box) => (getComputedStyle(box).overflowX === "auto" ? box.scrollWidth - box.clientWidth : 0);
const look = (box) => {
  if (hidden(box) > 1) box.tabIndex = 0;
  else box.removeAttribute("tabindex");
  box.classList.toggle("tvae-more", hidden(box) - box.scrollLeft > 1);
};
const lookAtAll = () => boxes().forEach(look);
window.addEventListener("load", () => {
  for (const box of boxes()) box.addEventListener("scroll", () => look(box), { passive: true });
  (window.MathJax?.startup?.promise ?? Promise.resolve()).then(lookAtAll);
});
window.addEventListener("resize", lookAtAll);
