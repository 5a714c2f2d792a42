// A page is printed in its light colours, whatever the screen shows.
const root = document.documentElement;
let shown;
window.addEventListener("beforeprint", () => {
  shown = root.dataset.theme;
  root.dataset.theme = "light";
});
window.addEventListener("afterprint", () => {
  root.dataset.theme = shown;
});
