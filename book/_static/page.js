// A page is printed in its light colours, whatever the screen shows; and what scrolls sideways can be reached by keys.
const root = document.documentElement;
let shown;
window.addEventListener("beforeprint", () => {
  shown = root.dataset.theme;
  root.dataset.theme = "light";
});
window.addEventListener("afterprint", () => {
  root.dataset.theme = shown;
});

const BOXES = "mjx-container, figure, pre, .output, .tvae-scroll, .pst-scrollable-table-container";
const reachBoxes = () => {
  for (const box of document.querySelectorAll(`.bd-article :is(${BOXES})`)) {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
};
window.addEventListener("load", () => (window.MathJax?.startup?.promise ?? Promise.resolve()).then(reachBoxes));
window.addEventListener("resize", reachBoxes);
